// How somebody beside a world's own links tells it that it is lost: the watch over mpirun rings, the world listens. It
// outlives both.
#pragma once

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

namespace chorale::coordinator {

/// Thread: any. The listener is called with the mutex held: it must return at once and may not call back.
class WorldAlarm {
 public:
  using Listener = std::function<void(const std::string& reason)>;

  /// The first reason stays; it is what a later listener hears at once.
  void ring(const std::string& reason) {
    const std::lock_guard lock(mutex_);
    if (reason_) return;
    reason_ = reason;
    if (listener_) listener_(*reason_);
  }
  /// After listen(nullptr) returned, nobody is called any more.
  void listen(Listener listener) {
    const std::lock_guard lock(mutex_);
    listener_ = std::move(listener);
    if (listener_ && reason_) listener_(*reason_);
  }
  std::optional<std::string> reason() const {
    const std::lock_guard lock(mutex_);
    return reason_;
  }

 private:
  mutable std::mutex mutex_;  // guards what follows
  std::optional<std::string> reason_;
  Listener listener_;
};

}  // namespace chorale::coordinator
