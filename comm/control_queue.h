// The bounded queue through which a link's thread hands events or messages to the thread that computes. Bounded by
// bytes: a full one refuses, and the link that filled it is dropped.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "comm/base/deadline.h"

namespace chorale::comm {

/// Item has a `payload` with a size. Thread: any.
template <typename Item>
class ControlQueue {
 public:
  explicit ControlQueue(size_t max_bytes) : max_bytes_(max_bytes) {}

  /// False when the queue is full. `item` then was not taken.
  bool push(Item item) {
    {
      const std::lock_guard lock(mutex_);
      if (!items_.empty() && bytes_ + cost(item) > max_bytes_) return false;
      add_locked(std::move(item));
    }
    arrived_.notify_one();
    return true;
  }
  /// For the few items that may not get lost.
  void push_always(Item item) {
    {
      const std::lock_guard lock(mutex_);
      add_locked(std::move(item));
    }
    arrived_.notify_one();
  }
  /// Nothing when the deadline passed, or the queue is closed and empty.
  std::optional<Item> pop(Deadline deadline) {
    std::unique_lock lock(mutex_);
    arrived_.wait_until(lock, deadline.when(), [&] { return closed_ || !items_.empty(); });
    if (items_.empty()) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    bytes_ -= cost(item);
    return item;
  }
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    arrived_.notify_all();
  }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

 private:
  static size_t cost(const Item& item) { return item.payload.size() + 64; }
  void add_locked(Item item) {
    bytes_ += cost(item);
    items_.push_back(std::move(item));
  }
  const size_t max_bytes_;
  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable arrived_;
  std::deque<Item> items_;
  size_t bytes_ = 0;
  bool closed_ = false;
};

}  // namespace chorale::comm
