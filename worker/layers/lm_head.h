// The end of a decoder: final norm, then logits for the rank's slice of the vocabulary (N8). Collecting the slices is
// the runner's.
#pragma once

#include "worker/layers/linear.h"
#include "worker/layers/norm.h"

namespace chorale::worker {

class LmHead {
 public:
  explicit LmHead(const StageParts& parts)
      : compute_(parts.compute),
        final_norm_(parts, parallel::Member::kFinalNorm, parallel::Member::kFinalNormBias, 0),
        projection_(parts.weights.matrix(parallel::Member::kLmHead), nullptr) {}

  /// f32 [rows, hidden] -> f32 [rows, local_vocab]; a rank without a slice does nothing.
  void forward(Step& step, MatrixView x, MatrixView out) const {
    if (out.cols == 0) return;
    const Workspace::Scope scope(step.op.scratch);
    const MatrixView normed = take_matrix(step.op, compute_, x.rows, x.cols);
    final_norm_.forward(step, x, normed);
    projection_.forward(step, normed, out);
  }

 private:
  DType compute_;
  Norm final_norm_;
  ColumnParallelLinear projection_;
};

}  // namespace chorale::worker
