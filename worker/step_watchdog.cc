#include "worker/step_watchdog.h"

namespace chorale::worker {

StepWatchdog::StepWatchdog(std::function<void(const std::string& what)> on_expired)
    : on_expired_(std::move(on_expired)), thread_([this] { watch(); }) {}

StepWatchdog::~StepWatchdog() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StepWatchdog::arm(std::string what, Deadline deadline) {
  bool must_wake = false;
  {
    const std::lock_guard lock(mutex_);
    // A thread that waits for an earlier deadline wakes up then, and sees this one.
    must_wake = is_idle_ || deadline.when() < sleeping_until_;
    what_ = std::move(what);
    deadline_ = deadline;
  }
  if (must_wake) changed_.notify_one();
}

void StepWatchdog::disarm() {
  const std::lock_guard lock(mutex_);
  deadline_.reset();
}

void StepWatchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    if (!deadline_) {
      is_idle_ = true;
      changed_.wait(lock, [this] { return stop_ || deadline_.has_value(); });
      is_idle_ = false;
      continue;
    }
    sleeping_until_ = deadline_->when();
    changed_.wait_until(lock, sleeping_until_);
    if (stop_ || !deadline_ || !deadline_->expired()) continue;
    const std::string what = what_;
    deadline_.reset();
    lock.unlock();
    on_expired_(what);
    lock.lock();
  }
}

}  // namespace chorale::worker
