// What the API needs of a model's tokenizer and chat template. `TokenizerText` implements it over Tokenizer and
// ChatTemplate; tests and the fuzzer put a tiny one here. A model without a tokenizer has none: then only prompts of
// token ids are served.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/error.h"
#include "coordinator/api/json.h"
#include "coordinator/text/chat_template.h"
#include "coordinator/text/tokenizer.h"

namespace chorale::coordinator::api {

/// Thread: const methods from any.
class ModelText {
 public:
  virtual ~ModelText() = default;
  /// Special tokens spelled in the text become their ids. Failure: the text cannot be tokenized.
  virtual Result<std::vector<int32_t>> encode(std::string_view text, AddSpecial add_special) const = 0;
  /// Valid UTF-8; special tokens are kept.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  /// The vocabulary's spelling ("Ġthe").
  virtual std::string token_text(int32_t id) const = 0;
  /// What the token stands for in the middle of a text; need not be whole UTF-8.
  virtual std::string token_bytes(int32_t id) const = 0;
  /// `variables` (an object) override bos_token and the rest. Failure: no template, or what it raised.
  virtual Result<std::string> render_chat(const Json& messages, AddGenerationPrompt add_generation_prompt,
                                          const Json& variables) const = 0;
};

}  // namespace chorale::coordinator::api
