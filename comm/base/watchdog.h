// Ends the process when a call that knows no deadline (MPI_Init, a communicator's split, MPI_Finalize) does not return
// in time.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "comm/base/deadline.h"

namespace chorale {

/// The exit code of a process whose world is lost.
constexpr int kExitWorldLost = 3;

/// Prints "chorale: <message>" as one line to standard error and leaves at once, without destructors: a rank whose
/// world is lost cannot finish anything.
[[noreturn]] void leave_lost_world(const std::string& message);

/// Guards the scope it lives in. At the deadline: leave_lost_world("<what> did not finish in time ...").
class Watchdog {
 public:
  Watchdog(std::string what, Deadline deadline);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  std::mutex mutex_;  // guards done_
  std::condition_variable finished_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace chorale
