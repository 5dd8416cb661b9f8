// Checks that ops share at their door. A wrong shape or type is a bug of the caller, so these CHECK.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// REQUIRES: `m` is a [rows, cols] matrix of `dtype` on the context's device.
inline void check_matrix(const OpContext& ctx, const MatrixView& m, int64_t rows, int64_t cols) {
  CHECK_EQ(m.rows, rows);
  CHECK_EQ(m.cols, cols);
  CHECK_GE(m.row_stride, m.cols);
  CHECK(m.device == ctx.device);
  CHECK(m.data != nullptr || rows * cols == 0);
}
inline void check_f32(const MatrixView& m) { CHECK(m.dtype == DType::kF32); }
inline void check_f32_or_bf16(const MatrixView& m) { CHECK(m.dtype == DType::kF32 || m.dtype == DType::kBF16); }

}  // namespace chorale::worker
