// Turns SIGTERM, SIGINT and SIGUSR1 into something a thread can wait for, with a deadline. mpirun forwards SIGUSR1 to
// its ranks but not SIGTERM, so both mean "drain".
#pragma once

#include <optional>

#include "comm/base/deadline.h"

namespace chorale::coordinator {

/// Make one before any thread starts: threads inherit the blocked signals, so none of them dies by one.
class SignalWaiter {
 public:
  SignalWaiter();  // throws Error{kSystem}
  ~SignalWaiter();
  SignalWaiter(const SignalWaiter&) = delete;
  SignalWaiter& operator=(const SignalWaiter&) = delete;

  /// The signal that came, or nothing at the deadline.
  std::optional<int> wait(Deadline deadline);

 private:
  int fd_ = -1;
};

}  // namespace chorale::coordinator
