// Checks that ops share at their door. A wrong shape or type is a bug of the caller, so these CHECK.
#pragma once

#include <span>

#include "comm/reduction_tree.h"
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

/// REQUIRES: `nodes` cover a weight's leaves, left to right; none means one node over all.
inline void check_nodes(std::span<const comm::LeafRange> nodes, int first_leaf, int num_leaves) {
  int next = first_leaf;
  for (const comm::LeafRange& node : nodes) {
    CHECK_EQ(node.begin, next);
    CHECK_GT(node.size(), 0);
    next = node.end;
  }
  CHECK(nodes.empty() || next == first_leaf + num_leaves);
}

}  // namespace chorale::worker
