// The "post_processor" of a tokenizer.json for single texts: which special tokens stand around the text's own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/text/json_fields.h"

namespace chorale::coordinator::text {

/// Thread: immutable after loading, any.
class PostProcessor {
 public:
  /// Adds nothing.
  PostProcessor() = default;
  /// Adds ids before and behind the text.
  PostProcessor(std::vector<int32_t> before, std::vector<int32_t> behind);
  /// `num_ids`: ids at or above it are Error{kCorrupt}; unknown types Error{kUnsupported}.
  PostProcessor(const JsonAt& json, int32_t num_ids);

  void apply(std::vector<int32_t>& ids) const;
  bool adds_nothing() const { return templates_.empty(); }

 private:
  /// One id, or (nullopt) the text.
  using Template = std::vector<std::optional<int32_t>>;
  void load(const JsonAt& json, int32_t num_ids);
  void load_template(const JsonAt& json, int32_t num_ids);

  std::vector<Template> templates_;  // applied one after the other
};

}  // namespace chorale::coordinator::text
