// y = x W^T + b over packed weights. Sums run as the numerics contract says (N2-N4): one ascending chain per output and
// leaf, leaves met in the reduction tree. Called by the linear layers; it does not communicate.
#pragma once

#include <span>

#include "comm/reduction_tree.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"
#include "worker/ops/packed_weight.h"

namespace chorale::worker {

/// Column-parallel weights (k not cut) have one leaf; leave `nodes` empty.
/// Row-parallel weights: `nodes` are this rank's maximal nodes (comm::maximal_nodes, global leaf numbers) that together
/// cover the weight's leaves, left to right; out holds one matrix a node, each the tree sum of its leaves, for the
/// all-reduce to add up.
struct LinearArgs {
  MatrixView x;                            // [rows, k] in the weight's type: f32 | bf16 | (in fragments) f16
  const PackedWeight* weight = nullptr;    // [n, k]
  const float* bias = nullptr;             // [n] or null; added once to the sum; only where out holds one node
  MatrixView out;                          // f32 [rows, n], or [num_nodes * rows, n], node-major
  std::span<const comm::LeafRange> nodes;  // empty: one node over all the weight's leaves
};
void linear(OpContext& ctx, const LinearArgs& args);

}  // namespace chorale::worker
