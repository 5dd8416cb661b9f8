// A progress bar on standard error, only where that is a terminal; long work of commands and of a worker's start
// reports to it.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace chorale {

/// Thread: one.
class ProgressBar {
 public:
  /// `total` steps of `what`; nothing is drawn when standard error is no terminal or total is 0.
  ProgressBar(std::string what, int64_t total);
  ~ProgressBar();  // clears the line
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// Draws at most ten times a second, and the last step always. `note` stands behind the bar.
  void update(int64_t done, const std::string& note = "");

 private:
  std::string what_;
  int64_t total_;
  bool visible_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace chorale
