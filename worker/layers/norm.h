// Normalisation of the residual stream before a block or the head: RMS or layer norm, as the model's configuration
// says.
#pragma once

#include "worker/layers/parts.h"
#include "worker/layers/step.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

class Norm {
 public:
  /// `member` names the weight (kAttnNorm, kFfnNorm, kFinalNorm), `bias` its bias where the model has one.
  Norm(const StageParts& parts, parallel::Member member, parallel::Member bias, int64_t layer);
  void forward(Step& step, MatrixView x,
               MatrixView out) const;  // f32 [rows, hidden] -> the compute type [rows, hidden]
  /// residual += sum + bias (f32 [rows, hidden], bias may be null), then out = forward(residual): one pass over the
  /// rows.
  void add_and_forward(Step& step, MatrixView residual, MatrixView sum, const float* bias, MatrixView out) const;

 private:
  parallel::NormKind kind_;
  const float* weight_;  // [hidden]
  const float* bias_;    // [hidden] or null
  float eps_;
};

}  // namespace chorale::worker
