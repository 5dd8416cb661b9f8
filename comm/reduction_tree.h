// The binary tree in which leaf sums meet (architecture.md N3): node [a, b) splits at a + ceil((b - a) / 2). Every rank
// count, thread count and backend adds in this order, so they all give the same bits. Used by GEMM kernels (inside a
// rank), collectives (between ranks) and the planner (which ranks hold which leaves).
#pragma once

#include <string>
#include <vector>

namespace chorale::comm {

struct LeafRange {
  int begin = 0;
  int end = 0;  // exclusive
  constexpr int size() const { return end - begin; }
  bool operator==(const LeafRange&) const = default;
};

/// Where node [begin, end) splits: the first leaf of its right child. REQUIRES: size >= 2.
inline int split_point(LeafRange node) { return node.begin + (node.size() + 1) / 2; }

/// The fewest nodes of the tree over [0, num_leaves) that cover `run`, left to right: what a rank that owns `run`
/// sends.
std::vector<LeafRange> maximal_nodes(int num_leaves, LeafRange run);

/// One addition of the tree: partial[left] += partial[right]; indices into the concatenated maximal nodes of all runs.
struct TreeAdd {
  int left = 0;
  int right = 0;
};

/// How contiguous runs that cover [0, num_leaves) meet: the nodes each run contributes, and the additions in order. The
/// root ends in node 0. A run may be empty.
struct TreeSchedule {
  std::vector<LeafRange> nodes;    // all maximal nodes, left to right
  std::vector<int> first_node;     // [num_runs + 1]: run r owns nodes first_node[r] .. first_node[r+1]
  std::vector<TreeAdd> additions;  // bottom up
  std::string to_string() const;
};
TreeSchedule make_tree_schedule(int num_leaves, const std::vector<LeafRange>& runs);

/// Shares of `num_leaves` for `num_ranks` ranks that follow the tree's own halving (num_ranks a power of two: one node
/// a rank), else contiguous runs in proportion to `weights` (all equal when empty). Every rank gets at least one leaf.
/// Throws Error{kInvalidArgument} with both numbers when num_ranks > num_leaves.
std::vector<LeafRange> share_leaves(int num_leaves, int num_ranks, const std::vector<double>& weights = {});

}  // namespace chorale::comm
