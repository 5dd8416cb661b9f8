// Speed of the CPU kernels beside what the machine can do: decode (weights from memory, few rows) in % of the measured
// read bandwidth, prefill (512 rows) in % of peak arithmetic. Usage: kernel_bench [threads] [isa] [cpu]; see
// docs/results/cpu-kernels.md.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string_view>
#include <vector>

#include "worker/machine_probe.h"
#include "worker/ops/attention.h"
#include "worker/ops/linear.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {

/// Wall time, or, with one thread on a machine that is shared with others, the time this thread ran ("cpu" as third
/// argument).
clockid_t bench_clock = CLOCK_MONOTONIC;

double now() {
  timespec t;
  clock_gettime(bench_clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Best of the runs that fit a quarter of a second (three at least): on a busy machine some run is not preempted.
template <typename Fn>
double best_seconds(const Fn& fn) {
  double best = 1e30;
  const double end = now() + 0.25;
  for (int i = 0; i < 5 || now() < end; ++i) {
    const double start = now();
    fn(i);
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

/// Runs walk over several copies of the weights, together far larger than the caches.
void bench_linear(const Bench& bench, DType dtype, int64_t n, int64_t k, int num_leaves,
                  const std::vector<int64_t>& row_counts) {
  std::vector<PackedWeight> weights;
  const bool few_rows = row_counts.front() <= 64;
  for (int i = 0; i < (few_rows ? 12 : 1); ++i) weights.push_back(make_weight(dtype, n, k, num_leaves));
  const bool dot = dtype == DType::kBF16 && bench.ctx.isa == parallel::Isa::kAvx512Bf16;
  for (int64_t rows : row_counts) {
    Tensor x(dtype, {rows, k}), out(DType::kF32, {rows, n});
    const double seconds = best_seconds([&](int i) {
      linear(bench.ctx, {x, &weights[static_cast<size_t>(i) % weights.size()], nullptr, out, {}});
    });
    const double gbps = static_cast<double>(weights[0].data.view().size_bytes()) / seconds / 1e9;
    const double gops = 2.0 * static_cast<double>(rows * n * k) / seconds / 1e9;
    fmt::print(
        "linear {:>4} n {:>5} k {:>4} leaves {:>2} rows {:>3}: {:8.3f} ms {:6.1f} GB/s ({:3.0f} % of read) {:7.1f} "
        "Gop/s ({:3.0f} % of peak)\n",
        to_string(dtype), n, k, num_leaves, rows, seconds * 1e3, gbps, 100 * gbps / bench.read_gbps, gops,
        100 * gops / (dot ? bench.dot_gops : bench.f32_gops));
  }
}

/// `sequences` decode rows or one prompt of `rows`, Llama-like heads, blocks in order; K and V bytes that are read at
/// least once.
void bench_attention(const Bench& bench, DType cache, int num_heads, int num_kv_heads, int head_dim, int sequences,
                     int rows, int context) {
  const int blocks = (context + kBlockTokens - 1) / kBlockTokens;
  const KvCache kv({cache, 1, num_kv_heads, head_dim}, int64_t{sequences} * blocks);
  const KvLayer layer = kv.layer(0);
  for (const TensorView& t : {layer.k, layer.v}) std::memset(t.data, 0, t.size_bytes());
  std::vector<int32_t> kv_head_of, query_start{0}, context_len, table;
  for (int h = 0; h < num_heads; ++h) kv_head_of.push_back(h * num_kv_heads / num_heads);
  for (int s = 0; s < sequences; ++s) {
    query_start.push_back(query_start.back() + rows);
    context_len.push_back(context);
    for (int b = 0; b < blocks; ++b) table.push_back(s * blocks + b);
  }
  Tensor q(DType::kF32, {sequences * rows, num_heads * head_dim}),
      out(DType::kBF16, {sequences * rows, num_heads * head_dim});
  const AttentionArgs args{q,
                           layer,
                           kv_head_of.data(),
                           num_heads,
                           sequences,
                           query_start.data(),
                           context_len.data(),
                           table.data(),
                           blocks,
                           0.125f,
                           0.0f,
                           0,
                           AttentionMask::kCausal,
                           out};
  const double seconds = best_seconds([&](int) { attention(bench.ctx, args); });
  const double bytes = static_cast<double>(layer.k.size_bytes() + layer.v.size_bytes());
  const double visible = static_cast<double>(sequences) * rows * (context - (rows - 1) / 2.0);
  const double gops = 4.0 * visible * num_heads * head_dim / seconds / 1e9;
  fmt::print(
      "attention {:>4} heads {}/{} dim {} sequences {:>2} rows {:>3} context {:>5}: {:8.3f} ms  {:6.1f} GB/s ({:3.0f} "
      "% of read)  {:7.1f} Gop/s "
      "({:3.0f} % of f32 peak)\n",
      to_string(cache), num_heads, num_kv_heads, head_dim, sequences, rows, context, seconds * 1e3,
      bytes / seconds / 1e9, 100 * bytes / seconds / 1e9 / bench.read_gbps, gops, 100 * gops / bench.f32_gops);
}

int run(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const parallel::Isa isa = argc > 2 ? parallel::isa_from_string(argv[2]) : parallel::best_isa(DType::kBF16);
  if (argc > 3 && std::string_view(argv[3]) == "cpu") bench_clock = CLOCK_THREAD_CPUTIME_ID;
  ThreadPool pool({.num_threads = threads, .spin_us = 20});
  Workspace scratch;
  OpContext ctx{DeviceKind::kCpu, isa, pool, scratch};
  const Bench bench{ctx, measure_read_gbps(pool), measure_peak_gops(pool, isa, PeakKind::kF32Fma),
                    measure_peak_gops(pool, isa, PeakKind::kBf16Dot)};
  fmt::print("{}, {} threads, {}: read {:.1f} GB/s, f32 FMA {:.0f} Gop/s, bf16 dot {:.0f} Gop/s\n",
             parallel::cpu_model_name(), threads, to_string(isa), bench.read_gbps, bench.f32_gops, bench.dot_gops);
  const std::vector<int64_t> few{1, 2, 4, 8, 16, 32};
  bench_linear(bench, DType::kBF16, 8192, 2048, 1, few);
  bench_linear(bench, DType::kBF16, 2048, 5632, 16, {1, 8});
  bench_linear(bench, DType::kF32, 4096, 2048, 1, few);
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    bench_linear(bench, dtype, 2048, 2048, 1, {512});
    bench_linear(bench, dtype, 2048, 2048, 16, {512});
    bench_linear(bench, dtype, 5632, 2048, 1, {512});
    bench_linear(bench, dtype, 2048, 5632, 16, {512});
    bench_linear(bench, dtype, 2048, 8192, 1, {512});
    bench_linear(bench, dtype, 576, 576, 1, {512});
  }
  for (DType cache : {DType::kBF16, DType::kF32}) {
    bench_attention(bench, cache, 32, 4, 64, 1, 1, 1024);
    bench_attention(bench, cache, 32, 4, 64, 1, 1, 16384);
    bench_attention(bench, cache, 32, 4, 64, 16, 1, 8192);
    bench_attention(bench, cache, 32, 32, 128, 4, 1, 4096);
    bench_attention(bench, cache, 32, 8, 128, 4, 1, 8192);
    bench_attention(bench, cache, 32, 4, 64, 1, 512, 512);
    bench_attention(bench, cache, 32, 8, 128, 1, 512, 4096);
    bench_attention(bench, cache, 9, 3, 64, 1, 512, 512);
  }
  return 0;
}

}  // namespace
}  // namespace chorale::worker

int main(int argc, char** argv) { return chorale::worker::run(argc, argv); }
