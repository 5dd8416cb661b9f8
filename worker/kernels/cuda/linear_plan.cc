#include "worker/kernels/cuda/linear_plan.h"

#include <algorithm>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {

/// A node's last leaf closes it and every right child that ends there too: one merge each.
void count_merges(LinearPlan& plan, comm::LeafRange node, int pending) {
  plan.max_pending = std::max(plan.max_pending, pending);
  if (node.size() == 1) return;
  const int split = comm::split_point(node);
  count_merges(plan, {node.begin, split}, pending);
  count_merges(plan, {split, node.end}, pending + 1);
  ++plan.merges[node.end - 1];
}

template <typename Weight>
LinearPlan make_plan(const Weight& weight, std::span<const comm::LeafRange> nodes) {
  LinearPlan plan;
  const int first_leaf = weight.first_leaf;
  plan.num_leaves = weight.num_leaves();
  CHECK(plan.num_leaves >= 1 && plan.num_leaves <= LinearPlan::kMaxLeaves);
  CHECK_LE(weight.padded_leaf_begin(plan.num_leaves), int64_t{INT32_MAX});
  for (int i = 0; i <= plan.num_leaves; ++i) {
    plan.begin[i] = static_cast<int32_t>(weight.leaf_begin[static_cast<size_t>(i)]);
    plan.padded_begin[i] = static_cast<int32_t>(weight.padded_leaf_begin(i));
  }
  const comm::LeafRange whole{first_leaf, first_leaf + plan.num_leaves};
  for (const comm::LeafRange& node : nodes.empty() ? std::span(&whole, 1) : nodes) {
    count_merges(plan, {node.begin - first_leaf, node.end - first_leaf}, 0);
    plan.ends_node[node.end - 1 - first_leaf] = 1;
    ++plan.num_nodes;
  }
  CHECK_LE(plan.max_pending, LinearPlan::kMaxPending);
  return plan;
}

}  // namespace

int LinearPlan::num_turns(int lanes, int group) const {
  int most = 0;
  for (int lane = 0; lane < lanes; ++lane) {
    int turns = 0;
    for (int leaf = lane; leaf < num_leaves; leaf += lanes)
      turns += (padded_begin[leaf + 1] - padded_begin[leaf] + group - 1) / group;
    most = std::max(most, turns);
  }
  return most;
}

LinearPlan make_linear_plan(const PackedWeight& weight, std::span<const comm::LeafRange> nodes) {
  return make_plan(weight, nodes);
}
LinearPlan make_linear_plan(const Int8Weight& weight, std::span<const comm::LeafRange> nodes) {
  return make_plan(weight, nodes);
}

}  // namespace chorale::worker
