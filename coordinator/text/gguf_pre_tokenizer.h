// The pre-tokenizers that GGUF files name in tokenizer.ggml.pre, as llama.cpp defines them: patterns applied one after
// the other, and two defaults that go with a name.
#pragma once

#include <span>
#include <string_view>

namespace chorale::coordinator::text {

struct GgufPreTokenizer {
  std::span<const std::string_view> patterns;  // each cuts the pieces of the one before; matches and gaps both stay
  bool ignore_merges = false;
  bool add_bos = false;
};

/// Throws Error{kUnsupported} that lists the known names.
GgufPreTokenizer gguf_pre_tokenizer(std::string_view name);

}  // namespace chorale::coordinator::text
