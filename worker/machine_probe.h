// What this machine can do at most: read bandwidth of memory and peak arithmetic of the vector units, measured now.
// Benches print it beside their own numbers; nothing that computes an answer reads it (N10).
#pragma once

#include <cstddef>

#include "parallel/numerics.h"
#include "worker/thread_pool.h"

namespace chorale::worker {

/// Every thread reads its own sequential stream of one large buffer on huge pages; the best of some passes, GB/s
/// (10^9). `bytes` 0: at least 512 MiB and four times the last-level cache.
double measure_read_gbps(ThreadPool& pool, size_t bytes = 0);

enum class PeakKind { kF32Fma, kBf16Dot };
/// Independent chains in registers on all threads, 10^9 operations (multiply and add count as two) a second; 0 if `isa`
/// lacks it.
double measure_peak_gops(ThreadPool& pool, parallel::Isa isa, PeakKind kind);

/// What this machine reaches with `threads` threads, measured now.
struct MachineSpeed {
  double read_gbps = 0;
  double f32_peak_gops = 0;
  double bf16_peak_gops = 0;
};
MachineSpeed measure_machine(int threads, parallel::Isa isa);

}  // namespace chorale::worker
