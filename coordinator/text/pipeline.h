// A loaded tokenizer from the inside: what the loaders (tokenizer_json.cc, tokenizer_gguf.cc) fill and Tokenizer uses.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/text/added_tokens.h"
#include "coordinator/text/decoder.h"
#include "coordinator/text/json_fields.h"
#include "coordinator/text/tokenizer.h"
#include "coordinator/text/vocabulary.h"

namespace chorale::coordinator::text {

/// Text to ids; one kind per file format.
class Encoder {
 public:
  virtual ~Encoder() = default;
  /// `text` is valid UTF-8.
  virtual std::vector<int32_t> encode(std::string_view text, AddSpecial add_special,
                                      ParseSpecial parse_special) const = 0;
};

struct Pipeline {
  Vocabulary vocabulary;  // the model's own tokens
  AddedTokens added;      // tokenizer.json only
  std::vector<bool> special_ids;
  std::vector<std::string> pieces;  // [id] bytes to decode (GGUF); empty: the tokens' strings are decoded
  std::unique_ptr<const Encoder> encoder;
  Decoder decoder;
  SpecialTokens special;
  std::optional<std::string> chat_template;

  const std::string& token_text(int32_t id) const {
    const AddedToken* token = added.find(id);
    return token != nullptr ? token->content : vocabulary.token(id);
  }
  std::optional<int32_t> find(std::string_view token) const {
    const AddedToken* known = added.find(token);
    return known != nullptr ? std::optional(known->id) : vocabulary.find(token);
  }
  bool contains(int32_t id) const { return vocabulary.contains(id) || added.find(id) != nullptr; }
  bool is_special(int32_t id) const {
    return id >= 0 && static_cast<size_t>(id) < special_ids.size() && special_ids[static_cast<size_t>(id)];
  }
  int32_t end_id() const { return std::max(vocabulary.end_id(), added.end_id()); }
  /// What the decoder takes for this id.
  const std::string& decoder_input(int32_t id) const {
    return pieces.empty() ? token_text(id) : pieces[static_cast<size_t>(id)];
  }
};

/// Throws Error. `configs`: special_tokens_map.json, tokenizer_config.json, where they exist; the later one counts.
/// `name` stands in messages.
std::unique_ptr<Pipeline> load_tokenizer_json(std::string_view json, const std::string& name,
                                              const std::vector<JsonAt>& configs);
std::unique_ptr<Pipeline> load_tokenizer_gguf(const parallel::GgufFile& file, const std::string& name);

}  // namespace chorale::coordinator::text
