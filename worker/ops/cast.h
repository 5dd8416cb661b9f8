// Changes the element type: float32 to bf16 or, on devices, f16 (nearest even, N5), bf16 or f16 to float32 (exact), and
// copies between float32.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

struct CastArgs {
  MatrixView x;    // f32 | bf16 | f16 [rows, n]
  MatrixView out;  // f32 | bf16 | (devices) f16 [rows, n]
};
void cast(OpContext& ctx, const CastArgs& args);

}  // namespace chorale::worker
