// The watch over mpirun: a thread that sleeps until it ends and says so at once, while the world lives and its links
// may not have noticed yet. started_world.cc makes one. It knows nothing of ranks.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "comm/base/deadline.h"
#include "coordinator/child_process.h"

namespace chorale::coordinator {

/// Thread: one owner. Destruction kills the launcher and what it started.
class LauncherWatch {
 public:
  /// `on_end` is called once, on the watch's thread, with words like "mpirun ended with code 1".
  LauncherWatch(ChildProcess launcher, std::function<void(const std::string& how)> on_end);
  ~LauncherWatch();
  LauncherWatch(const LauncherWatch&) = delete;
  LauncherWatch& operator=(const LauncherWatch&) = delete;

  /// False when it still runs at the deadline.
  bool wait(Deadline deadline);
  /// SIGTERM, then SIGKILL for what is left at the deadline.
  void terminate(Deadline deadline);

 private:
  void signal(int signal);

  ChildProcess launcher_;  // the watch's thread only, but for its pid
  const std::function<void(const std::string& how)> on_end_;
  std::mutex mutex_;  // guards has_ended_
  std::condition_variable ended_;
  bool has_ended_ = false;
  std::thread thread_;
};

}  // namespace chorale::coordinator
