// The residual addition that ends a block and the norm that begins the next, in one op: on a GPU the residual stream is
// read and written once instead of twice. Called by the decoder blocks; add_residual, rms_norm and layer_norm are its
// parts and define its bits.
#pragma once

#include "parallel/model_config.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// residual += (sum + sum_bias); out = norm(residual). The same bits as the two ops one after the other.
struct ResidualNormArgs {
  parallel::NormKind kind = parallel::NormKind::kRms;
  MatrixView residual;              // f32 [rows, dim], read and written
  MatrixView sum;                   // f32 [rows, dim]
  const float* sum_bias = nullptr;  // [dim] or null
  const float* weight = nullptr;    // [dim]
  const float* bias = nullptr;      // [dim] or null; of layer norms only
  float eps = 1e-5f;
  MatrixView out;  // f32 | bf16 | (devices) f16 [rows, dim]; not the residual's memory
};
void residual_norm(OpContext& ctx, const ResidualNormArgs& args);

}  // namespace chorale::worker
