#include "comm/reduction_tree.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "comm/base/error.h"

namespace chorale::comm {
namespace {

bool covers(LeafRange run, LeafRange node) { return run.begin <= node.begin && node.end <= run.end; }
bool disjoint(LeafRange run, LeafRange node) { return run.end <= node.begin || node.end <= run.begin; }

void collect_nodes(LeafRange node, LeafRange run, std::vector<LeafRange>& nodes) {
  if (disjoint(run, node)) return;
  if (covers(run, node)) {
    nodes.push_back(node);
    return;
  }
  const int middle = split_point(node);
  collect_nodes({node.begin, middle}, run, nodes);
  collect_nodes({middle, node.end}, run, nodes);
}

/// Appends the additions below `node` and returns the index where its sum ends. `next` walks over schedule.nodes, left
/// to right.
int add_below(LeafRange node, int& next, TreeSchedule& schedule) {
  if (schedule.nodes[next] == node) return next++;
  const int middle = split_point(node);
  const int left = add_below({node.begin, middle}, next, schedule);
  const int right = add_below({middle, node.end}, next, schedule);
  schedule.additions.push_back({left, right});
  return left;
}

void halve(LeafRange node, int num_ranks, std::vector<LeafRange>& shares) {
  if (num_ranks == 1) {
    shares.push_back(node);
    return;
  }
  const int middle = split_point(node);
  halve({node.begin, middle}, num_ranks / 2, shares);
  halve({middle, node.end}, num_ranks / 2, shares);
}

void check_weights(int num_ranks, const std::vector<double>& weights) {
  if (weights.size() != static_cast<size_t>(num_ranks))
    fail(ErrorCode::kInvalidArgument, "{} shares were given for {} ranks; give one share a rank", weights.size(),
         num_ranks);
  for (double weight : weights) {
    if (!std::isfinite(weight) || weight <= 0)
      fail(ErrorCode::kInvalidArgument, "share {} is not a positive number", weight);
  }
}

}  // namespace

std::vector<LeafRange> maximal_nodes(int num_leaves, LeafRange run) {
  if (run.begin < 0 || run.end > num_leaves || run.begin > run.end)
    fail(ErrorCode::kInvalidArgument, "leaves [{}, {}) are not a run of [0, {})", run.begin, run.end, num_leaves);
  std::vector<LeafRange> nodes;
  if (run.size() > 0) collect_nodes({0, num_leaves}, run, nodes);
  return nodes;
}

std::string TreeSchedule::to_string() const {
  std::string text;
  for (size_t run = 0; run + 1 < first_node.size(); ++run) {
    text += fmt::format("{}run {}:", run == 0 ? "" : " ", run);
    for (int i = first_node[run]; i < first_node[run + 1]; ++i)
      text += fmt::format(" #{}[{},{})", i, nodes[i].begin, nodes[i].end);
    text += ";";
  }
  for (const TreeAdd& add : additions) text += fmt::format(" #{}+=#{}", add.left, add.right);
  return text;
}

TreeSchedule make_tree_schedule(int num_leaves, const std::vector<LeafRange>& runs) {
  if (num_leaves < 1) fail(ErrorCode::kInvalidArgument, "a reduction tree needs at least one leaf, not {}", num_leaves);
  TreeSchedule schedule;
  schedule.first_node.push_back(0);
  int covered = 0;
  for (const LeafRange& run : runs) {
    if (run.begin != covered || run.end < run.begin)
      fail(ErrorCode::kInvalidArgument, "runs must follow each other: [{}, {}) after leaf {}", run.begin, run.end,
           covered);
    covered = run.end;
    for (const LeafRange& node : maximal_nodes(num_leaves, run)) schedule.nodes.push_back(node);
    schedule.first_node.push_back(static_cast<int>(schedule.nodes.size()));
  }
  if (covered != num_leaves) fail(ErrorCode::kInvalidArgument, "runs cover {} of {} leaves", covered, num_leaves);
  int next = 0;
  add_below({0, num_leaves}, next, schedule);
  CHECK_EQ(static_cast<size_t>(next), schedule.nodes.size());
  return schedule;
}

std::vector<LeafRange> share_leaves(int num_leaves, int num_ranks, const std::vector<double>& weights) {
  if (num_ranks < 1) fail(ErrorCode::kInvalidArgument, "{} ranks cannot share {} leaves", num_ranks, num_leaves);
  if (num_ranks > num_leaves)
    fail(ErrorCode::kInvalidArgument, "{} ranks cannot share {} leaves: every rank needs at least one", num_ranks,
         num_leaves);
  if (!weights.empty()) check_weights(num_ranks, weights);
  const bool equal = std::ranges::all_of(weights, [&](double weight) { return weight == weights.front(); });

  std::vector<LeafRange> shares;
  if (equal && std::has_single_bit(static_cast<unsigned>(num_ranks))) {
    halve({0, num_leaves}, num_ranks, shares);
    return shares;
  }
  const double total = weights.empty() ? num_ranks : std::accumulate(weights.begin(), weights.end(), 0.0);
  double wanted = 0;
  int begin = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    wanted += weights.empty() ? 1.0 : weights[rank];
    const int ranks_after = num_ranks - rank - 1;
    const int ideal = static_cast<int>(std::lround(num_leaves * (wanted / total)));
    const int end = ranks_after == 0 ? num_leaves : std::clamp(ideal, begin + 1, num_leaves - ranks_after);
    shares.push_back({begin, end});
    begin = end;
  }
  return shares;
}

}  // namespace chorale::comm
