// The kernels that a model's time goes to, on one device: attention (decode and prefill) and GEMM at the shapes of an
// 8B Llama, against the device's copy bandwidth and bf16 matmul rate measured in the same run (worker/device_probe.h).
// Usage: gpu_kernel_bench [--device NAME]; one JSON object a line. On the emulator the shapes are small: a rehearsal,
// its times mean nothing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "worker/device_probe.h"
#include "worker/kv/kv_cache.h"
#include "worker/ops/attention.h"
#include "worker/ops/linear.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {

constexpr int kExitUsage = 2;
constexpr int kHeads = 32, kKvHeads = 8, kHeadDim = 128;

struct Timing {
  double p50_us;
  double best_us;
};

class Bench {
 public:
  explicit Bench(DeviceKind kind)
      : device_(open_device(kind, 0)),
        stream_(device_->make_stream()),
        scratch_(device_.get(), size_t{64} << 20),
        ctx_{kind, parallel::Isa::kScalar, pool_, scratch_, stream_.get()},
        is_real_(kind == DeviceKind::kCuda) {}

  void run() {
    measure_yardsticks();
    for (int context : is_real_ ? std::vector{1024, 8192, 16384, 32768} : std::vector{300})
      for (int batch : is_real_ ? std::vector{1, 16} : std::vector{2}) decode(batch, context);
    for (int rows : is_real_ ? std::vector{1024, 4096, 8192, 16384} : std::vector{20}) prefill(rows);
    struct Shape {
      const char* name;
      int64_t n, k;
      int leaves;
    };
    const std::vector<Shape> shapes = is_real_ ? std::vector<Shape>{{"qkv", 6144, 4096, 1},
                                                                    {"wo", 4096, 4096, 16},
                                                                    {"gate and up", 28672, 4096, 1},
                                                                    {"down", 4096, 14336, 16},
                                                                    {"lm_head", 128256, 4096, 1}}
                                               : std::vector<Shape>{{"qkv", 96, 64, 1}, {"down", 64, 96, 3}};
    for (const Shape& shape : shapes)
      for (int64_t rows : is_real_ ? std::vector<int64_t>{1, 8, 64, 512, 2048} : std::vector<int64_t>{1, 9})
        gemm(shape.name, shape.n, shape.k, shape.leaves, rows);
  }

 private:
  // Rounds of as many launches as fill 20 ms or so; the first warms up. Calls launch(i) for i = 0, 1, ... of `copies`,
  // and from the start again.
  template <typename Launch>
  Timing time(int copies, const Launch& launch) {
    int next = 0;
    const auto seconds_of = [&](int count) {
      const auto start = Deadline::Clock::now();
      for (int i = 0; i < count; ++i) {
        launch(next);
        next = next + 1 == copies ? 0 : next + 1;
      }
      stream_->synchronize(Deadline::after(std::chrono::seconds(120)));
      return std::chrono::duration<double>(Deadline::Clock::now() - start).count();
    };
    seconds_of(1);
    if (!is_real_) return {seconds_of(1) * 1e6, 0};
    const int count = std::clamp(static_cast<int>(0.02 / seconds_of(1)), 1, 1000);
    std::vector<double> rounds;
    for (int round = 0; round < 9; ++round) rounds.push_back(seconds_of(count) / count * 1e6);
    std::ranges::sort(rounds);
    return {rounds[rounds.size() / 2], rounds.front()};
  }

  // So many copies of what a launch reads are together more than a GPU's L2 holds (50 MB on an H200), several times:
  // each launch then reads memory, as in a model, whose other layers come in between.
  int copies_of(size_t bytes) const {
    constexpr size_t kMoreThanCaches = size_t{256} << 20;
    return is_real_ ? static_cast<int>(kMoreThanCaches / bytes) + 1 : 1;
  }

  // Random values: zeros would let a device run faster than it does on a model.
  Tensor random(DType dtype, Shape shape) {
    Tensor host(dtype, shape);
    for (int64_t i = 0; i < shape.num_elements(); ++i) {
      const float value = static_cast<float>(random_() % 2001) * 0.001f - 1.0f;
      if (dtype == DType::kBF16)
        host.as<BFloat16>()[i] = to_bf16(value);
      else
        host.as<float>()[i] = value;
    }
    return copy_to_device({device_.get(), stream_.get()}, host);
  }
  Tensor ints(const std::vector<int32_t>& values) {
    Tensor host(DType::kI32, {static_cast<int64_t>(values.size())});
    std::ranges::copy(values, host.as<int32_t>());
    return copy_to_device({device_.get(), stream_.get()}, host);
  }

  void measure_yardsticks() {
    const DeviceProbeSizes sizes = probe_sizes(device_->kind());
    speed_ = measure_device({device_.get(), stream_.get()}, sizes);
    fmt::print("{{\"kernel\": \"copy\", \"shape\": \"{} MiB\", \"GB/s\": {:.0f}}}\n", sizes.copy_bytes >> 20,
               speed_.copy_gbps);
    fmt::print("{{\"kernel\": \"matmul ({})\", \"shape\": \"{} x {} x {}\", \"TFLOP/s\": {:.1f}}}\n", speed_.bf16_by,
               sizes.rows, sizes.n, sizes.k, speed_.bf16_gops * 1e-3);
  }

  void report(const std::string& kernel, const std::string& shape, Timing timing, double bytes, double operations) {
    const double gbps = bytes / timing.p50_us / 1e3;
    fmt::print(
        "{{\"kernel\": \"{}\", \"shape\": \"{}\", \"us\": {:.1f}, \"best us\": {:.1f}, \"GB/s\": {:.0f}, "
        "\"% of copy\": {:.1f}, \"TFLOP/s\": {:.1f}, \"% of matmul\": {:.1f}}}\n",
        kernel, shape, timing.p50_us, timing.best_us, gbps, 100 * gbps / speed_.copy_gbps,
        operations / timing.p50_us / 1e6, 100 * operations / timing.p50_us / 1e3 / speed_.bf16_gops);
    std::fflush(stdout);
  }

  // `batch` sequences of `context` keys, the last `rows` of each new.
  Timing attend(int batch, int context, int rows) {
    const int blocks = (context + kBlockTokens - 1) / kBlockTokens;
    const size_t bytes =
        size_t{2} * sizeof(BFloat16) * kKvHeads * kHeadDim * kBlockTokens * static_cast<size_t>(batch * blocks);
    const int copies = copies_of(bytes);
    KvCache cache(device_.get(),
                  {.dtype = DType::kBF16, .num_layers = copies, .num_kv_heads = kKvHeads, .head_dim = kHeadDim},
                  int64_t{batch} * blocks);
    const Tensor values = random(DType::kBF16, {cache.layer(0).k.shape.num_elements()});
    for (int i = 0; i < copies; ++i)
      for (const TensorView& part : {cache.layer(i).k, cache.layer(i).v})
        stream_->copy(part.data, values.view().data, part.size_bytes(), CopyKind::kDeviceToDevice);
    std::vector<int32_t> start{0}, table, kv_head_of;
    for (int i = 0; i < batch; ++i) start.push_back((i + 1) * rows);
    for (int i = 0; i < batch * blocks; ++i) table.push_back(i);
    std::shuffle(table.begin(), table.end(), random_);
    for (int i = 0; i < kHeads; ++i) kv_head_of.push_back(i / (kHeads / kKvHeads));
    const std::vector<int32_t> contexts(static_cast<size_t>(batch), context), splits = split_starts(contexts);
    const Tensor query_start = ints(start), block_table = ints(table), heads = ints(kv_head_of),
                 context_len = ints(contexts), split_start = ints(splits),
                 q = random(DType::kF32, {int64_t{batch} * rows, kHeads * kHeadDim}),
                 out(*device_, DType::kBF16, {int64_t{batch} * rows, kHeads * kHeadDim});
    AttentionArgs args{.q = q,
                       .cache = cache.layer(0),
                       .kv_head_of = heads.as<int32_t>(),
                       .num_heads = kHeads,
                       .num_sequences = batch,
                       .query_start = query_start.as<int32_t>(),
                       .context_len = context_len.as<int32_t>(),
                       .block_table = block_table.as<int32_t>(),
                       .block_table_stride = blocks,
                       .scale = 0.088388348f,
                       .out = out,
                       .split_start = split_start.as<int32_t>(),
                       .max_splits = splits.back(),
                       .max_query_len = rows};
    const Timing timing = time(copies, [&](int i) {
      args.cache = cache.layer(i);
      attention(ctx_, args);
    });
    stream_->synchronize(Deadline::after(std::chrono::seconds(60)));
    return timing;
  }
  void decode(int batch, int context) {
    const double keys = static_cast<double>(batch) * context;
    report("attention decode", fmt::format("batch {}, context {}", batch, context), attend(batch, context, 1),
           keys * kKvHeads * kHeadDim * 2 * sizeof(BFloat16), keys * kHeads * kHeadDim * 4);
  }
  void prefill(int rows) {
    const double pairs = 0.5 * rows * (rows + 1.0);
    report("attention prefill", fmt::format("{} rows", rows), attend(1, rows, rows),
           static_cast<double>(rows) * (kKvHeads * 2 * 2 + kHeads * (4 + 2)) * kHeadDim, pairs * kHeads * kHeadDim * 4);
  }

  void gemm(const char* name, int64_t n, int64_t k, int leaves, int64_t rows) {
    std::vector<int64_t> leaf_begin;
    for (int i = 0; i <= leaves; ++i) leaf_begin.push_back(k / 16 * i / leaves * 16);
    std::vector<PackedWeight> weights;
    const auto add_weight = [&]() -> PackedWeight& {
      weights.push_back(make_packed_weight(DType::kBF16, 0, k, leaf_begin, 0, WeightOrder::kFragments));
      weights.back().n = n;
      return weights.back();
    };
    PackedWeight& first = add_weight();
    const int64_t num_elements = first.padded_n() * first.padded_k();
    first.data = random(DType::kBF16, {num_elements});
    const void* values = first.data.view().data;
    const int copies = copies_of(static_cast<size_t>(num_elements) * sizeof(BFloat16));
    for (int i = 1; i < copies; ++i) {
      PackedWeight& copy = add_weight();
      copy.data = Tensor(*device_, DType::kBF16, {num_elements});
      stream_->copy(copy.data.view().data, values, copy.data.view().size_bytes(), CopyKind::kDeviceToDevice);
    }
    const Tensor x = random(DType::kBF16, {rows, k}), out(*device_, DType::kF32, {rows, n});
    LinearArgs args{.x = x, .weight = nullptr, .out = out, .nodes = {}};
    const Timing timing = time(copies, [&](int i) {
      args.weight = &weights[static_cast<size_t>(i)];
      linear(ctx_, args);
    });
    report("linear", fmt::format("{} {} x {}, {} rows, {} leaves", name, n, k, rows, leaves), timing,
           static_cast<double>(n * k + rows * k) * 2 + static_cast<double>(rows * n) * 4,
           2.0 * static_cast<double>(n * k * rows));
  }

  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  ThreadPool pool_{{.num_threads = 1, .spin_us = 0}};
  Workspace scratch_;
  OpContext ctx_;
  const bool is_real_;
  DeviceSpeed speed_;
  std::minstd_rand random_{1};
};

}  // namespace
}  // namespace chorale::worker

int main(int argc, char** argv) {
  if (argc != 1 && (argc != 3 || std::string_view(argv[1]) != "--device")) {
    fmt::print(stderr, "usage: gpu_kernel_bench [--device NAME]\n");
    return chorale::worker::kExitUsage;
  }
  try {
    chorale::set_compute_thread_fp_state();
    chorale::worker::Bench(chorale::device_kind_from_string(argc == 3 ? argv[2] : "cuda")).run();
    return 0;
  } catch (const chorale::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
