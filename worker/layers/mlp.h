// The position-wise MLP of a block, its intermediate columns cut over the group: gated (SwiGLU, arXiv:2002.05202) or
// plain.
#pragma once

#include "worker/layers/linear.h"
#include "worker/ops/activation.h"

namespace chorale::worker {

class Mlp {
 public:
  Mlp(const StageParts& parts, int64_t layer);
  /// residual += w_down(silu(w_gate x) * w_up x), or w_down(activation(w_up x)). x: the compute type [num_tokens,
  /// hidden].
  void add_to(Step& step, MatrixView x, MatrixView residual) const;

 private:
  parallel::MlpKind kind_;
  parallel::Activation activation_;
  DType compute_;
  ColumnParallelLinear up_;  // gate and up fused where gated
  RowParallelLinear down_;
};

}  // namespace chorale::worker
