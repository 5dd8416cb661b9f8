#include "coordinator/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "comm/base/error.h"

namespace chorale::coordinator::bench {

double percentile(std::span<const double> values, double percent) {
  CHECK(!values.empty());
  CHECK(percent >= 0 && percent <= 100);
  std::vector<double> sorted(values.begin(), values.end());
  std::ranges::sort(sorted);
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(place));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - static_cast<double>(below));
}

double mean(std::span<const double> values) {
  CHECK(!values.empty());
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

bool same_state(double read_gbps_a, double read_gbps_b) {
  return std::max(read_gbps_a, read_gbps_b) <= kStateFactor * std::min(read_gbps_a, read_gbps_b);
}

Selection select(std::span<const Sample> samples) {
  Selection selection;
  std::vector<size_t> stable;
  for (size_t i = 0; i < samples.size(); ++i)
    if (same_state(samples[i].read_gbps_before, samples[i].read_gbps_after)) stable.push_back(i);
  selection.num_flipped = samples.size() - stable.size();
  if (stable.empty()) {
    selection.kept.resize(samples.size());
    std::iota(selection.kept.begin(), selection.kept.end(), size_t{0});
    return selection;
  }
  // Each stable sample proposes its own state; the first with the most companions wins.
  for (const size_t candidate : stable) {
    std::vector<size_t> companions;
    for (const size_t i : stable)
      if (same_state(samples[candidate].read_gbps(), samples[i].read_gbps())) companions.push_back(i);
    if (companions.size() > selection.kept.size()) selection.kept = std::move(companions);
  }
  selection.num_other_state = stable.size() - selection.kept.size();
  return selection;
}

}  // namespace chorale::coordinator::bench
