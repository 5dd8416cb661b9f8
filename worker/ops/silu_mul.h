// SwiGLU's inner product (arXiv:2002.05202): out = silu(gate) * up, silu(x) = x / (1 + exp(-x)). Called by gated MLPs.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// gate and up may be the two halves of one fused product (MatrixView::columns).
struct SiluMulArgs {
  MatrixView gate;  // f32 [rows, n]
  MatrixView up;    // f32 [rows, n]
  MatrixView out;   // f32 | bf16 | (devices) f16 [rows, n]
};
void silu_mul(OpContext& ctx, const SiluMulArgs& args);

}  // namespace chorale::worker
