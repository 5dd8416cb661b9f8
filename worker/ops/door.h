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
/// What a rank computes in: float32, bf16, or on a device also f16.
inline void check_compute_type(const MatrixView& m) {
  CHECK(m.dtype == DType::kF32 || m.dtype == DType::kBF16 || (m.dtype == DType::kF16 && m.device != DeviceKind::kCpu));
}

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

/// What the linear ops ask of their arguments, but for the type of x.
template <typename Args>
void check_linear(const OpContext& ctx, const Args& args) {
  CHECK(args.weight != nullptr);
  const int64_t num_nodes = args.nodes.empty() ? 1 : static_cast<int64_t>(args.nodes.size());
  check_matrix(ctx, args.x, args.x.rows, args.weight->k);
  check_matrix(ctx, args.out, num_nodes * args.x.rows, args.weight->n);
  check_f32(args.out);
  CHECK(args.bias == nullptr || num_nodes == 1);
  check_nodes(args.nodes, args.weight->first_leaf, args.weight->num_leaves());
}

}  // namespace chorale::worker
