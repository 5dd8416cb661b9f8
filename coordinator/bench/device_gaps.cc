#include "coordinator/bench/device_gaps.h"

#include <algorithm>
#include <set>
#include <utility>

#include "comm/base/error.h"

namespace chorale::coordinator::bench {

using parallel::StageReport;

void ReportLog::add(const StageReport& report) {
  const std::lock_guard lock(mutex_);
  reports_.push_back(report);
  newest_[report.stage] = report.step;
  changed_.notify_all();
}

std::vector<StageReport> ReportLog::take(int num_stages, uint64_t last_step, Deadline deadline) {
  std::unique_lock lock(mutex_);
  const auto is_complete = [&] {
    return std::cmp_equal(newest_.size(), num_stages) &&
           std::ranges::all_of(newest_, [&](const auto& entry) { return entry.second >= last_step; });
  };
  if (!changed_.wait_until(lock, deadline.when(), is_complete))
    fail(ErrorCode::kDeadlineExceeded, "not every stage reported on step {}", last_step);
  return std::exchange(reports_, {});
}

void DeviceGaps::add(const DeviceGaps& other) {
  gaps_us.insert(gaps_us.end(), other.gaps_us.begin(), other.gaps_us.end());
  gap_seconds += other.gap_seconds;
  step_seconds += other.step_seconds;
}

DeviceGaps gaps_of(std::vector<StageReport> reports) {
  std::ranges::sort(reports, {}, [](const StageReport& report) { return std::pair(report.stage, report.step); });
  DeviceGaps gaps;
  std::set<int32_t> begun;
  for (const StageReport& report : reports) {
    if (begun.insert(report.stage).second || report.gap_ns == StageReport::kNoGap) continue;
    gaps.gaps_us.push_back(report.gap_ns * 1e-3);
    gaps.gap_seconds += report.gap_ns * 1e-9;
    gaps.step_seconds += (double{0} + report.compute_us + report.comm_us + report.wait_us) * 1e-6;
  }
  return gaps;
}

}  // namespace chorale::coordinator::bench
