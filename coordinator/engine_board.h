// What the engine's thread shows to others: statistics, counts of jobs, and whether the world lives. One mutex, held
// for moments; the engine writes, HTTP sessions and the metrics page read.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>

#include "comm/base/deadline.h"
#include "coordinator/engine_stats.h"

namespace chorale::coordinator {

/// The fields that EngineBoard guards.
struct EngineFacts {
  EngineStats stats;
  int num_jobs = 0;          // submitted and not ended
  int num_waiting_jobs = 0;  // of them never admitted: what max_waiting_jobs limits
  bool is_draining = false;
  std::optional<std::string> lost;                              // why the world is lost
  std::optional<std::chrono::steady_clock::time_point> answer;  // when a step last came back
  std::chrono::steady_clock::time_point allowed_until{};        // the deadline of the latest step with tokens
};

/// Thread: any.
class EngineBoard {
 public:
  template <typename Function>
  auto with(Function&& function) {
    std::lock_guard lock(mutex_);
    return function(facts_);
  }
  template <typename Function>
  auto with(Function&& function) const {
    std::lock_guard lock(mutex_);
    return function(facts_);
  }
  void job_ended() {
    std::lock_guard lock(mutex_);
    if (--facts_.num_jobs == 0) idle_.notify_all();
  }
  /// False when jobs were left at the deadline.
  bool wait_for_no_jobs(Deadline deadline) {
    std::unique_lock lock(mutex_);
    return idle_.wait_until(lock, deadline.when(), [this] { return facts_.num_jobs == 0; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable idle_;
  EngineFacts facts_;  // guarded by mutex_
};

}  // namespace chorale::coordinator
