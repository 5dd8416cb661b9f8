#include "coordinator/signal_waiter.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>

#include "comm/base/error.h"

namespace chorale::coordinator {

SignalWaiter::SignalWaiter() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&signals, signal);
  if (pthread_sigmask(SIG_BLOCK, &signals, nullptr) != 0) fail(ErrorCode::kSystem, "cannot block signals");
  fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd_ < 0) fail(ErrorCode::kSystem, "signalfd: {}", std::strerror(errno));
}

SignalWaiter::~SignalWaiter() { close(fd_); }

std::optional<int> SignalWaiter::wait(Deadline deadline) {
  while (true) {
    signalfd_siginfo info{};
    if (read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) return static_cast<int>(info.ssi_signo);
    if (deadline.expired()) return std::nullopt;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline.remaining());
    pollfd descriptor{fd_, POLLIN, 0};
    poll(&descriptor, 1, static_cast<int>(std::min<int64_t>(left.count(), 60000)));
  }
}

}  // namespace chorale::coordinator
