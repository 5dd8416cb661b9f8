// What the scalar linear kernels share: leaf sums meet in the tree, for every node, row and output.
#pragma once

#include <span>

#include "comm/reduction_tree.h"
#include "worker/ops/context.h"
#include "worker/thread_pool.h"

namespace chorale::worker {

/// The sum of `node`, in local leaf numbers; the tree's shape depends on its size only.
template <typename LeafSum>
float node_sum(comm::LeafRange node, const LeafSum& leaf_sum) {
  if (node.size() == 1) return leaf_sum(node.begin);
  const int split = comm::split_point(node);
  const float left = node_sum({node.begin, split}, leaf_sum);
  return left + node_sum({split, node.end}, leaf_sum);
}

/// Fills args.out from leaf_sum(leaf, row, col). Args: LinearArgs or one with the same members.
template <typename Args, typename LeafSum>
void run_scalar_linear(OpContext& ctx, const Args& args, const LeafSum& leaf_sum) {
  const int first_leaf = args.weight->first_leaf;
  const comm::LeafRange whole{first_leaf, first_leaf + args.weight->num_leaves()};
  const auto nodes = args.nodes.empty() ? std::span(&whole, 1) : args.nodes;
  ctx.pool.parallel_for(args.weight->n, [&](int64_t begin, int64_t end, int) {
    for (size_t i = 0; i < nodes.size(); ++i) {
      const comm::LeafRange local{nodes[i].begin - first_leaf, nodes[i].end - first_leaf};
      for (int64_t row = 0; row < args.x.rows; ++row)
        for (int64_t col = begin; col < end; ++col) {
          float sum = node_sum(local, [&](int leaf) { return leaf_sum(leaf, row, col); });
          if (args.bias != nullptr) sum += args.bias[col];
          args.out.template row<float>(static_cast<int64_t>(i) * args.x.rows + row)[col] = sum;
        }
    }
  });
}

}  // namespace chorale::worker
