// The work of one emulated stream: a queue and the thread that does it in order, while the host goes on. Used by the
// device "emulator" only.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/base/deadline.h"
#include "comm/base/error.h"

namespace chorale {

/// What failed on the device; an Error that can be thrown by several threads.
struct DeviceProblem {
  ErrorCode code = ErrorCode::kSystem;
  std::string message;
};

/// Counts records of one event and those that the device came to. Shared by the event and the work that names it.
class EmulatorMark {
 public:
  uint64_t next();  // called by who records
  uint64_t last();  // what was recorded so far; 0: nothing
  void reach(uint64_t number, const std::optional<DeviceProblem>& problem);
  /// Nothing when `when` passes first; else whether the streams that recorded it had failed.
  struct Reached {
    std::optional<DeviceProblem> problem;
  };
  std::optional<Reached> await(uint64_t number, std::optional<Deadline::Clock::time_point> when);
  Deadline::Clock::time_point reached_at() const;  // the last of those reached

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t recorded_ = 0, reached_ = 0;
  Deadline::Clock::time_point reached_at_{};
  std::optional<DeviceProblem> problem_;
};

/// Thread: push, await and the destructor by one at a time; is_idle by any.
class EmulatorQueue {
 public:
  /// Throws Error to say that it failed. Keeps what it needs alive.
  using Work = std::function<void()>;
  /// kEager begins at once; kLate when somebody waits for the stream or a little time has passed, so that a host that
  /// reads too early, or frees memory that work still needs, is found every time.
  enum class Pace { kEager, kLate };

  explicit EmulatorQueue(Pace pace);
  /// Waits for the work, as long as that moves on; a queue that is stuck is left behind with its thread.
  ~EmulatorQueue();
  EmulatorQueue(const EmulatorQueue&) = delete;
  EmulatorQueue& operator=(const EmulatorQueue&) = delete;

  /// After a failure nothing is done any more.
  void push(Work work);
  /// The mark is reached when the work before it is done, or will not be.
  void push_mark(std::shared_ptr<EmulatorMark> mark);
  /// False when `when` passes first. Throws the first failure.
  bool await_idle(Deadline::Clock::time_point when);
  void throw_failure() const;

  /// What others than the owner look at: outlives the queue.
  class State;
  std::shared_ptr<State> state() const { return state_; }
  /// Whether the work given so far ended before `when`, or in a failure. Any thread.
  static bool is_idle(State& state, Deadline::Clock::time_point when);
  /// Does it after all that was given so far, also after a failure. Any thread.
  static void push_last(State& state, Work work);

 private:
  const std::shared_ptr<State> state_;
  std::thread thread_;
};

}  // namespace chorale
