// Helpers of the op tests: a rank's context, random matrices, and a loop over every kernel of an op that this CPU can
// execute.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "worker/ops/context.h"
#include "worker/ops/kernel.h"
#include "worker/ops/matrix_view.h"
#include "worker/thread_pool.h"

namespace chorale::worker {

struct TestRank {
  explicit TestRank(int num_threads = 1, parallel::Isa isa = parallel::Isa::kScalar)
      : pool({.num_threads = num_threads, .spin_us = 0}), ctx{DeviceKind::kCpu, isa, pool, scratch} {}
  ThreadPool pool;
  Workspace scratch;
  OpContext ctx;
};

inline std::vector<parallel::Isa> isas_of_this_cpu() {
  std::vector<parallel::Isa> isas;
  for (auto isa : {parallel::Isa::kScalar, parallel::Isa::kAvx2, parallel::Isa::kAvx512, parallel::Isa::kAvx512Bf16})
    if (parallel::supports(isa)) isas.push_back(isa);
  return isas;
}

/// Calls fn(kernel) for every kernel of the op but the scalar reference.
template <typename Args, typename Fn>
void for_each_vector_kernel(OpContext& ctx, const Args& args, const Fn& fn) {
  for (const Kernel<Args>& kernel : KernelTable<Args>::all()) {
    if (kernel.device != DeviceKind::kCpu || kernel.isa == parallel::Isa::kScalar || !parallel::supports(kernel.isa))
      continue;
    ctx.isa = kernel.isa;
    if (!kernel.supports(ctx, args)) continue;
    SCOPED_TRACE(std::string(kernel.name));
    fn(kernel);
  }
}

template <typename Args>
void launch_scalar(OpContext& ctx, const Args& args) {
  for (const Kernel<Args>& kernel : KernelTable<Args>::all())
    if (kernel.device == DeviceKind::kCpu && kernel.isa == parallel::Isa::kScalar) return kernel.launch(ctx, args);
  FAIL() << "the op has no scalar kernel";
}

/// Values in [-1, 1) with a few exact zeros and denormals.
inline std::vector<float> random_floats(int64_t n, uint32_t seed) {
  std::minstd_rand random(seed + 1);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& x : values) {
    x = static_cast<float>(random() % 65536) / 32768.0f - 1.0f;
    if (random() % 97 == 0) x = 0.0f;
    if (random() % 101 == 0) x = 1e-40f;
  }
  return values;
}

inline Tensor random_tensor(DType dtype, Shape shape, uint32_t seed) {
  Tensor t(dtype, shape);
  const std::vector<float> values = random_floats(shape.num_elements(), seed);
  for (size_t i = 0; i < values.size(); ++i)
    if (dtype == DType::kBF16)
      t.as<BFloat16>()[i] = to_bf16(values[i]);
    else
      t.as<float>()[i] = values[i];
  return t;
}

/// Bit for bit; tells the first element that differs.
inline ::testing::AssertionResult same_bits(const MatrixView& a, const MatrixView& b) {
  if (a.rows != b.rows || a.cols != b.cols || a.dtype != b.dtype)
    return ::testing::AssertionFailure() << "shapes differ";
  for (int64_t r = 0; r < a.rows; ++r)
    for (int64_t c = 0; c < a.cols; ++c) {
      uint32_t x = 0, y = 0;
      const size_t size = size_of(a.dtype);
      std::memcpy(&x, a.columns(c, c + 1).row_range(r, r + 1).data, size);
      std::memcpy(&y, b.columns(c, c + 1).row_range(r, r + 1).data, size);
      if (x != y) {
        float fx, fy;
        x <<= size == 2 ? 16 : 0, y <<= size == 2 ? 16 : 0;
        std::memcpy(&fx, &x, 4), std::memcpy(&fy, &y, 4);
        return ::testing::AssertionFailure() << "row " << r << " column " << c << ": " << fx << " vs " << fy;
      }
    }
  return ::testing::AssertionSuccess();
}

}  // namespace chorale::worker
