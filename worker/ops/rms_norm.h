// Root-mean-square normalisation (arXiv:1910.07467): y = (x / sqrt(mean(x^2) + eps)) * weight.
// Called by the norm layer, and per head by models with q and k norms.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// x.cols may be several groups of `dim`: each is normalised alone with the same weight (heads). The sum of squares
/// runs in 16 virtual lanes (N4). out may be x when its type is f32.
struct RmsNormArgs {
  MatrixView x;                   // f32 [rows, groups * dim]
  const float* weight = nullptr;  // [dim]
  int64_t dim = 0;
  float eps = 1e-5f;
  MatrixView out;  // f32 | bf16 | (devices) f16 [rows, groups * dim]
};
void rms_norm(OpContext& ctx, const RmsNormArgs& args);

}  // namespace chorale::worker
