// Where a choice gets its text from: token ids in, whole UTF-8 out. The real one decodes with the model's tokenizer;
// tests spell their own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace chorale::coordinator {

class Tokenizer;

/// Thread: engine only.
class TextStream {
 public:
  virtual ~TextStream() = default;
  /// Text that is now certain; possibly empty. Special tokens have none.
  virtual std::string push(int32_t token_id) = 0;
  /// The rest; afterwards only destruction is allowed.
  virtual std::string finish() = 0;
};

/// Decodes what follows `prompt`, without special tokens. A null tokenizer gives a stream of empty texts.
std::unique_ptr<TextStream> make_text_stream(const std::shared_ptr<const Tokenizer>& tokenizer,
                                             std::span<const int32_t> prompt);

}  // namespace chorale::coordinator
