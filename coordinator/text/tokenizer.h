// Text to token ids and back, as the Hugging Face `tokenizers` library (tokenizer.json) and llama.cpp (GGUF metadata)
// do it, id for id. The API layer encodes prompts with it, the engine decodes answers, `chorale tokenize` shows it. It
// renders no chat template: it only hands over the template's source and the strings of the special tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/error.h"

namespace chorale::parallel {
class GgufFile;
}

namespace chorale::coordinator {

namespace text {
struct Pipeline;
class DecodeChain;
}  // namespace text

enum class AddSpecial { kNo, kYes };    // apply the post-processor (GGUF: add_bos_token, add_eos_token)
enum class ParseSpecial { kNo, kYes };  // "<s>" in the text becomes one id instead of being spelled out
enum class SkipSpecial { kNo, kYes };   // leave special tokens out of decoded text

/// What a model's files say about special tokens. Ids outside the vocabulary count as absent.
struct SpecialTokens {
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
  std::optional<int32_t> unk_id;
  std::optional<int32_t> pad_id;
  std::vector<int32_t> eos_ids;                // every id that ends an answer (EOS, GGUF: also EOT and EOM), ascending
  std::map<std::string, std::string> strings;  // "bos_token" -> "<s>", ...: variables for chat templates
};

/// Thread: immutable after loading; every method may run on many threads at once.
class Tokenizer {
 public:
  /// `path`: a Hugging Face folder (tokenizer.json, and tokenizer_config.json, special_tokens_map.json,
  /// chat_template.jinja where they exist), any tokenizer .json file, or a GGUF file with or without tensors. Throws
  /// Error: kNotFound names the missing file, kUnsupported the model, pre-tokenizer, normalizer or decoder that is not
  /// implemented, kCorrupt what is wrong.
  static std::shared_ptr<const Tokenizer> from_path(const std::filesystem::path& path);
  /// The same from the bytes of a tokenizer.json; `name` stands in messages.
  static std::shared_ptr<const Tokenizer> from_json(std::string_view json, const std::string& name);
  static std::shared_ptr<const Tokenizer> from_gguf(const parallel::GgufFile& file, const std::string& name);

  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Bytes that are not UTF-8 are read as U+FFFD. Throws Error where a pattern of the tokenizer takes too long on this
  /// text, or a word-level vocabulary has no unknown token.
  std::vector<int32_t> encode(std::string_view text, AddSpecial add_special, ParseSpecial parse_special) const;
  /// Valid UTF-8 always; ids outside the vocabulary are skipped.
  std::string decode(std::span<const int32_t> ids, SkipSpecial skip_special) const;

  /// The token as the vocabulary spells it ("Ġthe", "▁the", "<0x0A>"); empty outside the vocabulary.
  const std::string& token_text(int32_t id) const;
  /// The bytes the token stands for in the middle of a text (" the", "\n"); they need not be whole UTF-8.
  std::string token_bytes(int32_t id) const;
  bool is_special(int32_t id) const;
  /// One more than the largest id.
  int32_t vocab_size() const;
  std::optional<int32_t> find(std::string_view token) const;

  const SpecialTokens& special() const;
  /// Source of the chat template: chat_template.jinja, tokenizer_config.json (the string, or "default" of a list of
  /// named ones), GGUF's tokenizer.chat_template.
  const std::optional<std::string>& chat_template() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::unique_ptr<const text::Pipeline> pipeline);
  std::unique_ptr<const text::Pipeline> pipeline_;
};

/// Decodes one sequence token by token. What push() and finish() return, joined, equals decode() of all ids.
/// Thread: one at a time.
class StreamDecoder {
 public:
  /// With a `prompt`, the text goes on where the prompt ended: the first token keeps the leading space that decode()
  /// drops at the start of a text. The prompt's own text is not returned.
  StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, SkipSpecial skip_special,
                std::span<const int32_t> prompt = {});
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;

  /// Text that is now certain: whole UTF-8 only; possibly empty.
  std::string push(int32_t id);
  /// The rest; an incomplete character becomes U+FFFD. Afterwards only destruction is allowed.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  SkipSpecial skip_special_;
  std::unique_ptr<text::DecodeChain> chain_;
};

}  // namespace chorale::coordinator
