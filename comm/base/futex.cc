#include "comm/base/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

#include "comm/base/affinity.h"

namespace chorale {
namespace {

static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

long futex(const std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* time) {
  // Not FUTEX_PRIVATE: the word may lie in a segment that several processes map at different addresses.
  return syscall(SYS_futex, &word, operation, value, time, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected, Deadline deadline) {
  // steady_clock is CLOCK_MONOTONIC, which is what FUTEX_WAIT_BITSET measures its absolute time with.
  const auto since_start = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.when().time_since_epoch());
  const int64_t nanoseconds = std::max<int64_t>(0, since_start.count());
  const timespec until{static_cast<time_t>(nanoseconds / 1'000'000'000),
                       static_cast<long>(nanoseconds % 1'000'000'000)};
  futex(word, FUTEX_WAIT_BITSET, expected, &until);
}

void futex_wake_all(std::atomic<uint32_t>& word) { futex(word, FUTEX_WAKE, INT_MAX, nullptr); }

std::chrono::nanoseconds spin_time(int num_busy_threads) {
  return num_busy_threads > available_cores() ? std::chrono::nanoseconds(0) : std::chrono::microseconds(20);
}

}  // namespace chorale
