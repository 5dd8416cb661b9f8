// The compute threads of one rank: the caller and num_threads - 1 helpers that run one loop at a time together. Ops
// split rows, columns or heads over it, never a sum, so that results do not depend on its size. It runs no queue of
// tasks.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "comm/base/fp_state.h"

namespace chorale::worker {

struct ThreadPoolOptions {
  int num_threads = 1;
  int spin_us = 20;  // busy wait for the next loop before sleeping; 0 when ranks x threads exceed the host's cores
};

/// Thread: one caller at a time (the rank's compute thread).
class ThreadPool {
 public:
  explicit ThreadPool(ThreadPoolOptions options = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  /// Calls fn(thread) once on each thread (0 is the caller) and returns when all have returned. fn must not throw.
  template <typename Fn>
  void run(const Fn& fn) {
    run_erased([](const void* f, int thread) { (*static_cast<const Fn*>(f))(thread); }, &fn);
  }
  /// Splits [0, n) into contiguous parts of equal size and calls fn(begin, end, thread) for each that is not empty.
  /// With less than `min_per_thread` items a thread, fewer threads take part; one part runs on the caller without
  /// waking anybody.
  template <typename Fn>
  void parallel_for(int64_t n, const Fn& fn, int64_t min_per_thread = 1) {
    const int64_t most = min_per_thread > 1 ? (n + min_per_thread - 1) / min_per_thread : n;
    const int64_t parts = most < num_threads_ ? most : num_threads_;
    if (parts <= 1) {
      if (n > 0) fn(int64_t{0}, n, 0);
      return;
    }
    run([&](int thread) {
      if (thread >= parts) return;
      const int64_t begin = n * thread / parts, end = n * (thread + 1) / parts;
      if (begin < end) fn(begin, end, thread);
    });
  }

 private:
  using Body = void (*)(const void* fn, int thread);
  void run_erased(Body body, const void* fn);
  void helper(int thread);

  const int num_threads_;
  const int spin_us_;
  alignas(64) std::atomic<uint32_t> generation_{0};  // a new value starts a loop; helpers wait on it
  Body body_ = nullptr;                              // written before generation_, read after it
  const void* fn_ = nullptr;
  bool stop_ = false;
  std::atomic<uint32_t> sleepers_{0};             // helpers in or near the futex
  alignas(64) std::atomic<uint32_t> running_{0};  // helpers that have not finished the loop
  std::vector<std::thread> threads_;
};

}  // namespace chorale::worker
