// The order of additions of a linear op in the form that kernels of GPUs read: where leaves lie, and how their sums
// meet in the tree (N3). Made by the host for each launch, passed by value; it holds no pointers.
#pragma once

#include <cstdint>
#include <span>

#include "comm/reduction_tree.h"
#include "worker/ops/linear_int8.h"
#include "worker/ops/packed_weight.h"

namespace chorale::worker {

struct LinearPlan {
  static constexpr int kMaxLeaves = 16;  // of a rank (N2)
  static constexpr int kMaxPending = 4;  // sums that wait for their right neighbour: ceil(log2(kMaxLeaves))

  int32_t num_leaves = 0;
  int32_t num_nodes = 0;
  int32_t max_pending = 0;
  int32_t begin[kMaxLeaves + 1] = {};         // of a leaf in x; begin[num_leaves] == k
  int32_t padded_begin[kMaxLeaves + 1] = {};  // of a leaf in the weight
  // Leaves end from left to right. A leaf's sum meets, one after the other, the last merges[leaf] sums that wait, each
  // as the left operand; the result waits too, unless it is a node's: then it leaves.
  uint8_t merges[kMaxLeaves] = {};
  uint8_t ends_node[kMaxLeaves] = {};

  /// Turns of a pipeline that takes `group` padded k a turn, when leaf q, q + lanes, q + 2 lanes... go to lane q and
  /// the lanes work side by side.
  int num_turns(int lanes, int group) const;
};

/// `nodes` in global leaf numbers, left to right over all leaves; empty: one node.
/// REQUIRES: at most kMaxLeaves leaves.
LinearPlan make_linear_plan(const PackedWeight& weight, std::span<const comm::LeafRange> nodes);
LinearPlan make_linear_plan(const Int8Weight& weight, std::span<const comm::LeafRange> nodes);

}  // namespace chorale::worker
