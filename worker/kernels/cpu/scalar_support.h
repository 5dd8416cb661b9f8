// What the scalar reference kernels share: the 16 virtual lanes of row reductions (N4) and conversions at the edges.
// Plain loops, meant to be read; the vector kernels repeat their arithmetic operation by operation.
#pragma once

#include <cmath>
#include <cstdint>

#include "comm/base/dtype.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

constexpr int kLanes = 16;

/// Lane i meets lane i + 8, then i + 4, i + 2, i + 1.
inline float fold_sum(float (&lane)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] + lane[i + width];
  return lane[0];
}
inline float fold_max(float (&lane)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
  return lane[0];
}

inline void store(const MatrixView& m, int64_t row, int64_t col, float value) {
  if (m.dtype == DType::kBF16)
    m.row<BFloat16>(row)[col] = to_bf16(value);
  else if (m.dtype == DType::kF16)  // devices only; here for their tests
    m.row<Float16>(row)[col] = to_f16(value);
  else
    m.row<float>(row)[col] = value;
}

inline float load(const MatrixView& m, int64_t row, int64_t col) {
  if (m.dtype == DType::kBF16) return to_float(m.row<BFloat16>(row)[col]);
  if (m.dtype == DType::kF16) return to_float(m.row<Float16>(row)[col]);
  return m.row<float>(row)[col];
}

}  // namespace chorale::worker
