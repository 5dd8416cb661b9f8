#include "comm/base/watchdog.h"

#include <unistd.h>

#include "comm/base/error.h"

namespace chorale {

void leave_lost_world(const std::string& message) {
  const std::string line = "chorale: " + message + "\n";
  // Straight to the descriptor: standard streams may be locked by the thread that hangs.
  [[maybe_unused]] const ssize_t rc = write(STDERR_FILENO, line.data(), line.size());
  _exit(kExitWorldLost);
}

Watchdog::Watchdog(std::string what, Deadline deadline) {
  thread_ = std::thread([this, what = std::move(what), deadline] {
    std::unique_lock lock(mutex_);
    if (!finished_.wait_until(lock, deadline.when(), [&] { return done_; }))
      leave_lost_world(what + " did not finish in time: a rank is missing or a host does not answer; leaving");
  });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    done_ = true;
  }
  finished_.notify_one();
  thread_.join();
}

}  // namespace chorale
