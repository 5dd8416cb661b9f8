// A point in time by which a blocking call must have finished. Every blocking call in this project takes one.
#pragma once

#include <algorithm>
#include <chrono>

namespace chorale {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  explicit Deadline(Clock::time_point when) : when_(when) {}
  static Deadline after(std::chrono::nanoseconds duration) { return Deadline(Clock::now() + duration); }
  bool expired() const { return Clock::now() >= when_; }
  Clock::time_point when() const { return when_; }
  /// Time left, never negative.
  std::chrono::nanoseconds remaining() const {
    return std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(when_ - Clock::now()));
  }

 private:
  Clock::time_point when_;
};

}  // namespace chorale
