// Speed of the CPU kernels beside what the machine can do: decode (weights from memory, few rows) in % of the measured
// read bandwidth, prefill (512 rows) in % of peak arithmetic. Usage: kernel_bench [threads] [isa]; see
// docs/results/cpu-kernels.md.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "worker/machine_probe.h"
#include "worker/ops/linear.h"

namespace chorale::worker {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

template <typename Fn>
double best_of(int repeats, const Fn& fn) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const double start = now();
    fn();
    best = std::min(best, now() - start);
  }
  return best;
}

struct Bench {
  OpContext& ctx;
  double read_gbps;
  double f32_gops;
  double dot_gops;
};

/// Weights with plausible values and no page of zeros; the values do not matter for speed.
PackedWeight make_weight(DType dtype, int64_t n, int64_t k, int num_leaves) {
  std::vector<int64_t> leaves;
  for (int i = 0; i <= num_leaves; ++i) leaves.push_back(k * i / num_leaves);
  PackedWeight w = make_packed_weight(dtype, n, k, leaves);
  if (dtype == DType::kF32)
    std::fill_n(w.data.as<float>(), w.data.shape().num_elements(), 0.5f);
  else
    std::fill_n(w.data.as<BFloat16>(), w.data.shape().num_elements(), to_bf16(0.5f));
  return w;
}

void bench_linear(const Bench& bench, DType dtype, int64_t n, int64_t k, int num_leaves,
                  const std::vector<int64_t>& row_counts) {
  const PackedWeight w = make_weight(dtype, n, k, num_leaves);
  const bool dot = dtype == DType::kBF16 && bench.ctx.isa == parallel::Isa::kAvx512Bf16;
  for (int64_t rows : row_counts) {
    Tensor x(dtype, {rows, k}), out(DType::kF32, {rows, n});
    const double seconds = best_of(rows > 64 ? 4 : 8, [&] { linear(bench.ctx, {x, &w, nullptr, out, {}}); });
    const double gbps = static_cast<double>(w.data.view().size_bytes()) / seconds / 1e9;
    const double gops = 2.0 * static_cast<double>(rows * n * k) / seconds / 1e9;
    fmt::print(
        "linear {:>4} n {:>6} k {:>5} leaves {:>2} rows {:>4}: {:8.3f} ms  {:6.1f} GB/s ({:3.0f} % of read)  {:7.1f} "
        "Gop/s ({:3.0f} % of peak)\n",
        to_string(dtype), n, k, num_leaves, rows, seconds * 1e3, gbps, 100 * gbps / bench.read_gbps, gops,
        100 * gops / (dot ? bench.dot_gops : bench.f32_gops));
  }
}

int run(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const parallel::Isa isa = argc > 2 ? parallel::isa_from_string(argv[2]) : parallel::best_isa(DType::kBF16);
  ThreadPool pool({.num_threads = threads, .spin_us = 20});
  Workspace scratch;
  OpContext ctx{DeviceKind::kCpu, isa, pool, scratch};
  const Bench bench{ctx, measure_read_gbps(pool), measure_peak_gops(pool, isa, PeakKind::kF32Fma),
                    measure_peak_gops(pool, isa, PeakKind::kBf16Dot)};
  fmt::print("{}, {} threads, {}: read {:.1f} GB/s, f32 FMA {:.0f} Gop/s, bf16 dot {:.0f} Gop/s\n",
             parallel::cpu_model_name(), threads, to_string(isa), bench.read_gbps, bench.f32_gops, bench.dot_gops);
  const std::vector<int64_t> few{1, 2, 4, 8, 16, 32};
  bench_linear(bench, DType::kBF16, 65536, 2048, 1, few);
  bench_linear(bench, DType::kBF16, 65536, 2048, 16, {1, 8});
  bench_linear(bench, DType::kF32, 32768, 2048, 1, few);
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    bench_linear(bench, dtype, 2048, 2048, 1, {512});
    bench_linear(bench, dtype, 2048, 2048, 16, {512});
    bench_linear(bench, dtype, 5632, 2048, 1, {512});
    bench_linear(bench, dtype, 2048, 5632, 16, {512});
    bench_linear(bench, dtype, 2048, 8192, 1, {512});
    bench_linear(bench, dtype, 576, 576, 1, {512});
  }
  return 0;
}

}  // namespace
}  // namespace chorale::worker

int main(int argc, char** argv) { return chorale::worker::run(argc, argv); }
