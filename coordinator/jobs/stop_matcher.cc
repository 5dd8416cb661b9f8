#include "coordinator/jobs/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace chorale::coordinator {

StopMatcher::StopMatcher(std::vector<std::string> stops, StopText stop_text)
    : stops_(std::move(stops)), stop_text_(stop_text) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

StopMatcher::Output StopMatcher::append(std::string_view piece) {
  if (stops_.empty()) return {std::string(piece), std::nullopt};
  held_ += piece;
  size_t best_end = std::string::npos;
  const std::string* best = nullptr;
  for (const std::string& stop : stops_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (best == nullptr || end < best_end || (end == best_end && stop.size() > best->size())) {
      best_end = end;
      best = &stop;
    }
  }
  Output output;
  if (best != nullptr) {
    has_matched_ = true;
    output.matched = *best;
    output.text = held_.substr(0, stop_text_ == StopText::kInclude ? best_end : best_end - best->size());
    held_.clear();
    return output;
  }
  const size_t keep = held_back();
  output.text = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return output;
}

std::string StopMatcher::finish() { return std::exchange(held_, {}); }

size_t StopMatcher::held_back() const {
  // The longest end of the text that starts some stop string. Stop strings are UTF-8, so it never starts inside a
  // character.
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t size = std::min(stop.size() - 1, held_.size()); size > longest; --size) {
      if (held_.compare(held_.size() - size, size, stop, 0, size) != 0) continue;
      longest = size;
      break;
    }
  }
  return longest;
}

}  // namespace chorale::coordinator
