// residual += (sum + bias): ends every attention and MLP block, after the tree's root, alike on every rank (N5). The
// bias is added to the sum first.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

struct AddResidualArgs {
  MatrixView residual;          // f32 [rows, dim], read and written
  MatrixView sum;               // f32 [rows, dim]
  const float* bias = nullptr;  // [dim] or null
};
void add_residual(OpContext& ctx, const AddResidualArgs& args);

}  // namespace chorale::worker
