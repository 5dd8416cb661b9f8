#include "coordinator/launcher_watch.h"

#include <signal.h>

#include <chrono>
#include <utility>

#include <fmt/format.h>

namespace chorale::coordinator {
namespace {

constexpr std::chrono::hours kVeryLong{24 * 365};
constexpr int kSignalled = 128;

std::string how_it_ended(int code) {
  return code > kSignalled ? fmt::format("mpirun was killed by signal {}", code - kSignalled)
                           : fmt::format("mpirun ended with code {}", code);
}

}  // namespace

LauncherWatch::LauncherWatch(ChildProcess launcher, std::function<void(const std::string& how)> on_end)
    : launcher_(std::move(launcher)), on_end_(std::move(on_end)), thread_([this] {
        std::optional<int> code;
        while (!code) code = launcher_.wait(Deadline::after(kVeryLong));
        {
          const std::lock_guard lock(mutex_);
          has_ended_ = true;
        }
        ended_.notify_all();
        on_end_(how_it_ended(*code));
      }) {}

LauncherWatch::~LauncherWatch() {
  signal(SIGKILL);
  thread_.join();
}

bool LauncherWatch::wait(Deadline deadline) {
  std::unique_lock lock(mutex_);
  return ended_.wait_until(lock, deadline.when(), [this] { return has_ended_; });
}

void LauncherWatch::terminate(Deadline deadline) {
  signal(SIGTERM);
  if (!wait(deadline)) signal(SIGKILL);
}

/// To the whole group, unless it is known to be gone: its number may be another's then.
void LauncherWatch::signal(int signal) {
  const std::lock_guard lock(mutex_);
  if (!has_ended_) kill(-launcher_.pid(), signal);
}

}  // namespace chorale::coordinator
