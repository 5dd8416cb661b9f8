// Waiting on a 32-bit word in memory that threads or processes share: a short spin, then the kernel's futex with a
// deadline. Used by the communicators and by thread pools; nothing in this project waits by sleeping in a loop.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "comm/base/deadline.h"

namespace chorale {

/// Sleeps while `word` holds `expected`, at most until the deadline. May return early for no reason: check again.
void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, Deadline deadline);
/// Wakes every thread of every process that sleeps on `word`.
void futex_wake_all(std::atomic<uint32_t>& word);

inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

/// How long to spin before the futex: 20 us, or nothing when `num_busy_threads` on this host exceed the cores, because
/// the spinning thread would then keep the one it waits for off its core.
std::chrono::nanoseconds spin_time(int num_busy_threads);

/// Spins until `ready()` or until `limit` has passed. Returns whether it became ready.
template <typename Ready>
bool spin_until(Ready ready, std::chrono::nanoseconds limit) {
  if (limit.count() <= 0) return ready();
  const auto end = Deadline::Clock::now() + limit;
  do {
    for (int i = 0; i < 32; ++i) {
      if (ready()) return true;
      cpu_relax();
    }
  } while (Deadline::Clock::now() < end);
  return ready();
}

}  // namespace chorale
