#include "coordinator/jobs/text_stream.h"

#include "coordinator/text/tokenizer.h"

namespace chorale::coordinator {
namespace {

class NoText : public TextStream {
 public:
  std::string push(int32_t /*token_id*/) override { return {}; }
  std::string finish() override { return {}; }
};

class DecodedText : public TextStream {
 public:
  DecodedText(std::shared_ptr<const Tokenizer> tokenizer, std::span<const int32_t> prompt)
      : decoder_(std::move(tokenizer), SkipSpecial::kYes, prompt) {}
  std::string push(int32_t token_id) override { return decoder_.push(token_id); }
  std::string finish() override { return decoder_.finish(); }

 private:
  StreamDecoder decoder_;
};

}  // namespace

std::unique_ptr<TextStream> make_text_stream(const std::shared_ptr<const Tokenizer>& tokenizer,
                                             std::span<const int32_t> prompt) {
  if (tokenizer == nullptr) return std::make_unique<NoText>();
  return std::make_unique<DecodedText>(tokenizer, prompt);
}

}  // namespace chorale::coordinator
