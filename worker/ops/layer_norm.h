// Layer normalisation (arXiv:1607.06450): y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias. Called by
// the norm layer.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// Both sums run in 16 virtual lanes (N4). out may be x when its type is f32.
struct LayerNormArgs {
  MatrixView x;                   // f32 [rows, dim]
  const float* weight = nullptr;  // [dim]
  const float* bias = nullptr;    // [dim] or null
  float eps = 1e-5f;
  MatrixView out;  // f32 | bf16 | (devices) f16 [rows, dim]
};
void layer_norm(OpContext& ctx, const LayerNormArgs& args);

}  // namespace chorale::worker
