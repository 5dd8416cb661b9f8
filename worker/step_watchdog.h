// Ends the process when a step does not finish by its deadline: a rank that hangs in a kernel, or in a call that
// ignores its own deadline, must not hold up the world. One thread for the life of the worker; arming costs no system
// call while steps follow each other.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/base/deadline.h"

namespace chorale::worker {

class StepWatchdog {
 public:
  /// `on_expired` is called on the watchdog's thread with what was armed; it is expected not to return.
  explicit StepWatchdog(std::function<void(const std::string& what)> on_expired);
  ~StepWatchdog();
  StepWatchdog(const StepWatchdog&) = delete;
  StepWatchdog& operator=(const StepWatchdog&) = delete;

  /// Thread: the compute thread.
  void arm(std::string what, Deadline deadline);
  void disarm();

 private:
  void watch();

  const std::function<void(const std::string& what)> on_expired_;
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  std::optional<Deadline> deadline_;
  Deadline::Clock::time_point sleeping_until_{};  // of the watchdog's thread
  std::string what_;
  bool is_idle_ = false;  // the thread waits without a deadline
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace chorale::worker
