// ThreadPool: every index once, every thread in the same floating-point state, thousands of loops without a lost
// wake-up. Workspace: scopes.
#include "worker/thread_pool.h"

#include <gtest/gtest.h>

#include <vector>

#include "worker/machine_probe.h"
#include "worker/ops/workspace.h"

namespace chorale::worker {
namespace {

TEST(ThreadPool, RunsEveryIndexOnce) {
  for (int threads : {1, 2, 3, 7})
    for (int spin_us : {0, 20}) {
      ThreadPool pool({.num_threads = threads, .spin_us = spin_us});
      for (int64_t n : {0, 1, 2, 6, 7, 100})
        for (int64_t grain : {1, 4, 1000}) {
          std::vector<int> hits(static_cast<size_t>(n));
          pool.parallel_for(
              n,
              [&](int64_t begin, int64_t end, int thread) {
                EXPECT_TRUE(thread >= 0 && thread < threads);
                for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
              },
              grain);
          for (int hit : hits) ASSERT_EQ(hit, 1);
        }
    }
}

TEST(ThreadPool, LosesNoWakeUp) {
  for (int spin_us : {0, 5}) {
    ThreadPool pool({.num_threads = 4, .spin_us = spin_us});
    std::atomic<int64_t> sum{0};
    for (int i = 0; i < 3000; ++i) pool.run([&](int thread) { sum += thread; });
    EXPECT_EQ(sum.load(), 3000 * (1 + 2 + 3));
  }
}

TEST(ThreadPool, EveryThreadFlushesDenormals) {
  ThreadPool pool({.num_threads = 3, .spin_us = 0});
  std::atomic<int> flushed{0};
  pool.run([&](int) {
    volatile float small = 0x1p-126f, half = 0.5f;
    if (small * half == 0.0f) ++flushed;
  });
  EXPECT_EQ(flushed.load(), 3);
}

TEST(Workspace, GivesBackAtTheEndOfAScopeAndKeepsPointersWhileItGrows) {
  Workspace workspace(1024);
  float* first = workspace.take<float>(100);
  first[99] = 7.0f;
  void* inside = nullptr;
  {
    Workspace::Scope scope(workspace);
    inside = workspace.take_bytes(100);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(inside) % 64, 0u);
    auto* big = workspace.take<double>(100000);
    big[99999] = 1.0;
  }
  const size_t grown = workspace.capacity_bytes();
  for (int i = 0; i < 10; ++i) {
    Workspace::Scope scope(workspace);
    EXPECT_EQ(workspace.take_bytes(100), inside);
    workspace.take<double>(100000);
  }
  EXPECT_EQ(workspace.capacity_bytes(), grown);
  EXPECT_EQ(first[99], 7.0f);
}

TEST(MachineProbe, MeasuresSomethingPlausible) {
  ThreadPool pool;
  const double gbps = measure_read_gbps(pool, size_t{8} << 20);
  EXPECT_GT(gbps, 0.1);
  EXPECT_LT(gbps, 5000);
  for (auto isa : {parallel::Isa::kAvx2, parallel::Isa::kAvx512})
    EXPECT_EQ(parallel::supports(isa), measure_peak_gops(pool, isa, PeakKind::kF32Fma) > 1.0);
  EXPECT_EQ(measure_peak_gops(pool, parallel::Isa::kScalar, PeakKind::kBf16Dot), 0.0);
}

}  // namespace
}  // namespace chorale::worker
