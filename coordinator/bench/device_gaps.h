// Whether the host holds a device up: how long it has nothing to do between the steps of a run, by its own clock, from
// the reports that every stage makes of every step. `bench engine` collects them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <vector>

#include "comm/base/deadline.h"
#include "parallel/step_plan.h"

namespace chorale::coordinator::bench {

/// Takes what EngineOptions::on_stage_report tells. Thread: add on the engine's, take on one other.
class ReportLog {
 public:
  void add(const parallel::StageReport& report);
  /// The reports that came since the last call, once each of `num_stages` stages has told of step `last_step`: a
  /// report comes after the tokens of its step. Throws Error{kDeadlineExceeded}.
  std::vector<parallel::StageReport> take(int num_stages, uint64_t last_step, Deadline deadline);

 private:
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::vector<parallel::StageReport> reports_;
  std::map<int32_t, uint64_t> newest_;  // step, by stage
};

struct DeviceGaps {
  std::vector<double> gaps_us;  // between the steps of a run, of all stages; the clock's grain is half a microsecond
  double gap_seconds = 0;
  double step_seconds = 0;  // of the same steps, waiting for other stages included
  /// Share of the run in which devices had no step to do.
  double idle_share() const { return gap_seconds > 0 ? gap_seconds / (gap_seconds + step_seconds) : 0; }
  void add(const DeviceGaps& other);
};
/// Of one run: the first step of each stage came after a time without work and does not count. Empty where reports name
/// no gaps (CPUs).
DeviceGaps gaps_of(std::vector<parallel::StageReport> reports);

}  // namespace chorale::coordinator::bench
