// The "model" of a tokenizer: turns one piece of text into ids. One file per kind (bpe_model.cc, spm_model.cc,
// word_level_model.cc); the loaders choose by name.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace chorale::coordinator::text {

/// Thread: immutable after loading, any.
class Model {
 public:
  virtual ~Model() = default;
  /// Appends the ids of one piece (valid UTF-8, not empty).
  virtual void encode(std::string_view piece, std::vector<int32_t>& ids) const = 0;
};

}  // namespace chorale::coordinator::text
