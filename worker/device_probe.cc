#include "worker/device_probe.h"

#include <algorithm>
#include <limits>
#include <random>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/tensor.h"
#include "comm/cuda/cublaslt_library.h"
#include "worker/ops/library_gemm.h"
#include "worker/ops/linear.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {

constexpr std::chrono::seconds kPatience{120};

/// The shortest of some launches, by the device's own clock.
template <typename Launch>
double best_seconds(DeviceStream where, int launches, const Launch& launch) {
  launch();
  const auto begin = where.device->make_event(EventTiming::kOn), end = where.device->make_event(EventTiming::kOn);
  double best = std::numeric_limits<double>::max();
  for (int i = 0; i < launches; ++i) {
    where.stream->record(*begin);
    launch();
    where.stream->record(*end);
    where.stream->synchronize(*end, Deadline::after(kPatience));
    best = std::min(best, std::chrono::duration<double>(end->since(*begin)).count());
  }
  return best;
}

/// Random bf16 in [-1, 1): zeros would let a device run faster than it does on a model.
Tensor random_bf16(DeviceStream where, Shape shape) {
  constexpr int64_t kPeriod = 1 << 20;
  const int64_t count = shape.num_elements();
  Tensor host(DType::kBF16, {std::min(count, kPeriod)}), on_device(*where.device, DType::kBF16, shape);
  std::minstd_rand random(1);
  for (int64_t i = 0; i < std::min(count, kPeriod); ++i)
    host.as<BFloat16>()[i] = to_bf16(static_cast<float>(random() % 2000) * 0.001f - 1.0f);
  for (int64_t i = 0; i < count; i += kPeriod)
    where.stream->copy(on_device.as<BFloat16>() + i, host.view().data,
                       static_cast<size_t>(std::min(kPeriod, count - i)) * sizeof(BFloat16), CopyKind::kHostToDevice);
  where.stream->synchronize(Deadline::after(kPatience));
  return on_device;
}

double measure_copy_gbps(DeviceStream where, const DeviceProbeSizes& sizes) {
  const Shape shape{static_cast<int64_t>(sizes.copy_bytes)};
  const Tensor from(*where.device, DType::kU8, shape), to(*where.device, DType::kU8, shape);
  const double seconds = best_seconds(where, sizes.launches, [&] {
    where.stream->copy(to.view().data, from.view().data, sizes.copy_bytes, CopyKind::kDeviceToDevice);
  });
  return 2 * static_cast<double>(sizes.copy_bytes) / seconds / 1e9;
}

/// `library`: "cublaslt-13.1.0", which multiplies by its own first proposal, as under --answer fast; "": our kernel.
double measure_bf16_gops(DeviceStream where, const DeviceProbeSizes& sizes, const std::string& library) {
  const auto order = library.empty() ? WeightOrder::kFragments : WeightOrder::kRowMajor;
  PackedWeight weight = make_packed_weight(DType::kBF16, 0, sizes.k, {}, 0, order);
  weight.n = sizes.n;
  weight.data =
      random_bf16(where, {order == WeightOrder::kRowMajor ? sizes.n * sizes.k : weight.padded_n() * weight.padded_k()});
  if (!library.empty()) weight.library = fit_library_gemm(library + "/", parallel::Answer::kFast, where, weight);
  const Tensor x = random_bf16(where, {sizes.rows, sizes.k}), out(*where.device, DType::kF32, {sizes.rows, sizes.n});
  ThreadPool pool({.num_threads = 1, .spin_us = 0});
  Workspace scratch(where.device, size_t{64} << 20);
  OpContext ctx{where.kind(), parallel::Isa::kScalar, pool, scratch, where.stream};
  const double seconds =
      best_seconds(where, sizes.launches, [&] { linear(ctx, {.x = x, .weight = &weight, .out = out}); });
  return 2 * static_cast<double>(sizes.rows * sizes.n) * static_cast<double>(sizes.k) / seconds / 1e9;
}

}  // namespace

DeviceProbeSizes probe_sizes(DeviceKind kind) {
  if (kind == DeviceKind::kCuda) return {};
  return {.copy_bytes = size_t{1} << 20, .rows = 16, .n = 32, .k = 32, .launches = 2};
}

DeviceSpeed measure_device(DeviceStream where, const DeviceProbeSizes& sizes) {
  DeviceSpeed speed;
  speed.copy_gbps = measure_copy_gbps(where, sizes);
  if (const std::string version = cublaslt_version(where.kind()); !version.empty()) {
    try {
      speed.bf16_by = "cublaslt-" + version;
      speed.bf16_gops = measure_bf16_gops(where, sizes, speed.bf16_by);
      return speed;
    } catch (const Error& error) {
      log_warn("{} does not multiply here, so that the kernel of our own is the yardstick: {}", speed.bf16_by,
               error.what());
    }
  }
  speed.bf16_by = "own";
  speed.bf16_gops = measure_bf16_gops(where, sizes, "");
  return speed;
}

DeviceSpeed measure_device(DeviceKind kind, int index) {
  const auto device = open_device(kind, index);
  const auto stream = device->make_stream();
  return measure_device({device.get(), stream.get()}, probe_sizes(kind));
}

}  // namespace chorale::worker
