// Finds stop strings in text that arrives in pieces, wherever the borders between tokens lie, and holds back text that
// may still become one. A choice feeds it; it knows no tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/jobs/job.h"

namespace chorale::coordinator {

class StopMatcher {
 public:
  /// Empty stop strings never match. `stop_text`: whether the matched string stays in the text.
  StopMatcher(std::vector<std::string> stops, StopText stop_text);

  struct Output {
    std::string text;                    // final: nothing of it will be taken back
    std::optional<std::string> matched;  // the stop string; nothing may be appended after it
  };
  /// The match that ends first wins (the longest of those), which does not depend on how the text is cut. Whole UTF-8
  /// in, whole UTF-8 out.
  Output append(std::string_view piece);
  /// The text held back, when no more will come.
  std::string finish();
  bool has_matched() const { return has_matched_; }

 private:
  size_t held_back() const;

  std::vector<std::string> stops_;
  StopText stop_text_;
  std::string held_;  // a proper prefix of some stop string
  bool has_matched_ = false;
};

}  // namespace chorale::coordinator
