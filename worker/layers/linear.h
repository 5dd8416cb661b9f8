// Linear layers over packed weights. Column parallel: a rank computes its own outputs, nobody communicates. Row
// parallel: ranks hold leaves of the inputs, their partial sums meet in the reduction tree (N2, N3), then bias and
// residual are added once (N5).
#pragma once

#include "worker/layers/norm.h"
#include "worker/layers/parts.h"
#include "worker/layers/step.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// Scratch of the current step as a matrix; valid until the Workspace::Scope around it ends.
MatrixView take_matrix(OpContext& op, DType dtype, int64_t rows, int64_t cols);

class ColumnParallelLinear {
 public:
  /// `bias` may be null; it is fused as the weight is.
  ColumnParallelLinear(const PackedWeight& weight, const float* bias) : weight_(&weight), bias_(bias) {}
  int64_t num_outputs() const { return weight_->n; }
  void forward(Step& step, MatrixView x, MatrixView out) const;  // the compute type [rows, k] -> f32 [rows, n]

 private:
  const PackedWeight* weight_;
  const float* bias_;
};

class RowParallelLinear {
 public:
  /// `runs`: the leaves of each rank of `group`, in order; for a fast answer each rank has one sum. `bias` (whole, or
  /// null) is added after the root, alike on every rank.
  RowParallelLinear(const PackedWeight& weight, const float* bias, const std::vector<comm::LeafRange>& runs,
                    comm::Communicator& group, parallel::Answer answer);
  /// residual += x W^T + bias, equal bits on every rank. x: the compute type [rows, local k]; f32 [rows, n].
  void add_to(Step& step, MatrixView x, MatrixView residual) const { add_to(step, x, residual, nullptr, {}); }
  /// The same, and normed = next(residual) (the compute type [rows, n]) while the rows are at hand; `next` may be null.
  void add_to(Step& step, MatrixView x, MatrixView residual, const Norm* next, MatrixView normed) const;

 private:
  const PackedWeight* weight_;
  const float* bias_;
  comm::TreeSchedule schedule_;
  std::vector<comm::LeafRange> nodes_;  // this rank's; empty: its weight has one leaf
  comm::Communicator& group_;
};

}  // namespace chorale::worker
