#include "worker/machine_probe.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "comm/base/tensor.h"
#include "worker/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace chorale::worker {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename Fn>
double best_seconds(ThreadPool& pool, int passes, const Fn& fn) {
  double best = 1e30;
  for (int i = 0; i < passes; ++i) {
    const double start = seconds_now();
    pool.run(fn);
    best = std::min(best, seconds_now() - start);
  }
  return best;
}

constexpr int64_t kPeakIterations = 500000;  // under a millisecond: some pass is not preempted
constexpr int kChains = 12;                  // enough for two FMA units of latency 5
std::atomic<uint64_t> benchmark_sink{0};

#if defined(__x86_64__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own header, in _mm512_reduce_add_epi64
__attribute__((target("avx512f"))) uint64_t read_avx512(const std::byte* p, size_t bytes) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  for (size_t i = 0; i + 256 <= bytes; i += 256) {
    _mm_prefetch(reinterpret_cast<const char*>(p + i + 4096), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(p + i + 4096 + 64), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(p + i + 4096 + 128), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(p + i + 4096 + 192), _MM_HINT_T0);
    a = _mm512_xor_si512(a, _mm512_loadu_si512(p + i));
    b = _mm512_xor_si512(b, _mm512_loadu_si512(p + i + 64));
    c = _mm512_xor_si512(c, _mm512_loadu_si512(p + i + 128));
    d = _mm512_xor_si512(d, _mm512_loadu_si512(p + i + 192));
  }
  const __m512i all = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
  return static_cast<uint64_t>(_mm512_reduce_add_epi64(all));
}

// Assembly, so that the chains stay in registers and none is folded away. Denormals are flushed and the inputs zero:
// full speed.
#define CHAIN12(op, reg)                                                                                              \
  op " %%" reg "12, %%" reg "12, %%" reg "0\n" op " %%" reg "12, %%" reg "12, %%" reg "1\n" op " %%" reg "12, %%" reg \
     "12, %%" reg "2\n" op " %%" reg "12, %%" reg "12, %%" reg "3\n" op " %%" reg "12, %%" reg "12, %%" reg "4\n" op  \
     " %%" reg "12, %%" reg "12, %%" reg "5\n" op " %%" reg "12, %%" reg "12, %%" reg "6\n" op " %%" reg "12, %%" reg \
     "12, %%" reg "7\n" op " %%" reg "12, %%" reg "12, %%" reg "8\n" op " %%" reg "12, %%" reg "12, %%" reg "9\n" op  \
     " %%" reg "12, %%" reg "12, %%" reg "10\n" op " %%" reg "12, %%" reg "12, %%" reg "11\n"
#define CLOBBERS \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12"

void fma_avx512() {
  __asm__ volatile("vpxord %%zmm12, %%zmm12, %%zmm12" ::: "xmm12");
  for (int64_t i = 0; i < kPeakIterations; ++i) __asm__ volatile(CHAIN12("vfmadd231ps", "zmm")::: CLOBBERS);
}
void fma_avx2() {
  __asm__ volatile("vpxor %%ymm12, %%ymm12, %%ymm12" ::: "xmm12");
  for (int64_t i = 0; i < kPeakIterations; ++i) __asm__ volatile(CHAIN12("vfmadd231ps", "ymm")::: CLOBBERS);
}
void dot_avx512() {
  __asm__ volatile("vpxord %%zmm12, %%zmm12, %%zmm12" ::: "xmm12");
  for (int64_t i = 0; i < kPeakIterations; ++i) __asm__ volatile(CHAIN12("vdpbf16ps", "zmm")::: CLOBBERS);
}
#endif

uint64_t read_portable(const std::byte* p, size_t bytes) {
  uint64_t sums[4] = {};
  for (size_t i = 0; i + 32 <= bytes; i += 32)
    for (size_t j = 0; j < 4; ++j) {
      uint64_t word;
      std::memcpy(&word, p + i + 8 * j, 8);
      sums[j] ^= word;
    }
  return sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
}

uint64_t read_all(const std::byte* p, size_t bytes) {
#if defined(__x86_64__)
  if (parallel::supports(parallel::Isa::kAvx512)) return read_avx512(p, bytes);
#endif
  return read_portable(p, bytes);
}

}  // namespace

double measure_read_gbps(ThreadPool& pool, size_t bytes) {
  if (bytes == 0) {
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    bytes = std::max(size_t{512} << 20, cache > 0 ? 4 * static_cast<size_t>(cache) : 0);
  }
  const auto threads = static_cast<size_t>(pool.num_threads());
  // The buffer is read in slices, a few milliseconds each, so that a busy machine leaves some of them alone.
  constexpr size_t kSlices = 16;
  const size_t part = bytes / threads / (kSlices * 4096) * 4096 * kSlices, slice = part / kSlices;
  const Tensor buffer(DType::kU8, {static_cast<int64_t>(part * threads)});
  auto* data = static_cast<std::byte*>(buffer.view().data);
  pool.run([&](int t) { std::memset(data + static_cast<size_t>(t) * part, 1, part); });
  double best = 1e30;
  for (size_t i = 0; i < 5 * kSlices; ++i) {
    const size_t offset = i % kSlices * slice;
    best = std::min(best, best_seconds(pool, 1, [&](int t) {
                      benchmark_sink += read_all(data + static_cast<size_t>(t) * part + offset, slice);
                    }));
  }
  return static_cast<double>(slice * threads) / best / 1e9;
}

double measure_peak_gops(ThreadPool& pool, parallel::Isa isa, PeakKind kind) {
#if defined(__x86_64__)
  using parallel::Isa;
  void (*loop)() = nullptr;
  int lanes = 0;
  if (kind == PeakKind::kBf16Dot) {
    if (isa == Isa::kAvx512Bf16) loop = dot_avx512, lanes = 32;
  } else if (isa >= Isa::kAvx512) {
    loop = fma_avx512, lanes = 16;
  } else if (isa == Isa::kAvx2) {
    loop = fma_avx2, lanes = 8;
  }
  if (loop == nullptr || !parallel::supports(isa)) return 0.0;
  const double seconds = best_seconds(pool, 30, [&](int) { loop(); });
  return static_cast<double>(kPeakIterations) * kChains * lanes * 2 * pool.num_threads() / seconds / 1e9;
#else
  return 0.0;
#endif
}

MachineSpeed measure_machine(int threads, parallel::Isa isa) {
  ThreadPool pool(ThreadPoolOptions{threads});
  return {measure_read_gbps(pool), measure_peak_gops(pool, isa, PeakKind::kF32Fma),
          measure_peak_gops(pool, isa, PeakKind::kBf16Dot)};
}

}  // namespace chorale::worker
