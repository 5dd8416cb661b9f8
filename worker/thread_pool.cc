#include "worker/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <climits>

#include "comm/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace chorale::worker {
namespace {

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

/// Returns when word != old (then its value) having spun at most spin_us, true in `changed`; else false.
bool spin_until_change(const std::atomic<uint32_t>& word, uint32_t old, int spin_us) {
  if (word.load(std::memory_order_acquire) != old) return true;
  if (spin_us <= 0) return false;
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us);
  do {
    for (int i = 0; i < 32; ++i) {
      if (word.load(std::memory_order_acquire) != old) return true;
      pause_briefly();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

ThreadPool::ThreadPool(ThreadPoolOptions options) : num_threads_(options.num_threads), spin_us_(options.spin_us) {
  CHECK_GE(num_threads_, 1);
  set_compute_thread_fp_state();  // the caller computes too
  threads_.reserve(static_cast<size_t>(num_threads_ - 1));
  for (int t = 1; t < num_threads_; ++t) threads_.emplace_back([this, t] { helper(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_seq_cst);
  futex_wake_all(generation_);
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run_erased(Body body, const void* fn) {
  if (num_threads_ == 1) return body(fn, 0);
  body_ = body;
  fn_ = fn;
  running_.store(static_cast<uint32_t>(num_threads_ - 1), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) > 0) futex_wake_all(generation_);
  body(fn, 0);
  for (uint32_t left = running_.load(std::memory_order_acquire); left != 0;
       left = running_.load(std::memory_order_acquire))
    if (!spin_until_change(running_, left, spin_us_)) futex_wait(running_, left);
}

void ThreadPool::helper(int thread) {
  set_compute_thread_fp_state();
  uint32_t seen = 0;
  while (true) {
    if (!spin_until_change(generation_, seen, spin_us_)) {
      sleepers_.fetch_add(
          1, std::memory_order_seq_cst);  // before the value is looked at again: the caller sees us or we see it
      if (generation_.load(std::memory_order_seq_cst) == seen) futex_wait(generation_, seen);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      if (generation_.load(std::memory_order_acquire) == seen) continue;  // woken for nothing
    }
    ++seen;  // loops never overlap: a helper sees each generation
    if (stop_) return;
    body_(fn_, thread);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) futex_wake_all(running_);
  }
}

}  // namespace chorale::worker
