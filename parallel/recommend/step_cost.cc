#include "parallel/recommend/step_cost.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

constexpr double kMultiplyAdd = 2;  // operations
constexpr double kFloatBytes = 4;   // activations travel in float32 (N5)

int node_of(const MachineFigures& machine, int rank) { return rank / machine.ranks_per_node; }

double rounds_of(size_t num_members) { return num_members < 2 ? 0 : std::ceil(std::log2(num_members)); }

double transfer_seconds(const LinkFigures& link, double bytes) { return bytes / (link.bytes_per_s * kReachedLink); }

/// The ranks of a stage by node: how many are on each, and what they contribute to an all-gather.
class Group {
 public:
  Group(const MachineFigures& machine, const Layout& layout, int stage) : machine_(machine) {
    for (int tp = 0; tp < layout.tp; ++tp) nodes_.push_back(node_of(machine, layout.rank_of(stage, tp)));
    for (int node : nodes_) ++members_[node];
  }
  bool crosses_nodes() const { return members_.size() > 1; }

  /// Rank i contributes bytes[i]; all end with everything. First round by round between nodes, then inside each.
  double all_gather_seconds(const std::vector<double>& bytes) const {
    const double total = std::accumulate(bytes.begin(), bytes.end(), 0.0);
    std::map<int, double> of_node;
    for (size_t i = 0; i < bytes.size(); ++i) of_node[nodes_[i]] += bytes[i];
    double seconds = 0;
    if (crosses_nodes()) {
      double most = 0;  // into one node
      for (const auto& [node, own] : of_node) most = std::max(most, total - own);
      seconds += rounds_of(members_.size()) * machine_.between.latency_s + transfer_seconds(machine_.between, most);
    }
    size_t largest = 0;
    double most = 0;  // into one rank that has neighbours
    for (size_t i = 0; i < bytes.size(); ++i) {
      const size_t neighbours = members_.at(nodes_[i]);
      largest = std::max(largest, neighbours);
      if (neighbours > 1) most = std::max(most, total - bytes[i]);
    }
    return seconds + rounds_of(largest) * machine_.inside.latency_s + transfer_seconds(machine_.inside, most);
  }

  /// Rank i gives bytes[i] to every other, something else to each.
  double exchange_seconds(const std::vector<double>& bytes) const {
    const double total = std::accumulate(bytes.begin(), bytes.end(), 0.0);
    std::map<int, double> of_node;
    for (size_t i = 0; i < bytes.size(); ++i) of_node[nodes_[i]] += bytes[i];
    double between = 0, inside = 0;  // into one node, into one rank from its neighbours
    size_t largest = 0;
    for (const auto& [node, own] : of_node)
      between = std::max(between, static_cast<double>(members_.at(node)) * (total - own));
    for (size_t i = 0; i < bytes.size(); ++i) {
      inside = std::max(inside, of_node.at(nodes_[i]) - bytes[i]);
      largest = std::max(largest, members_.at(nodes_[i]));
    }
    return rounds_of(members_.size()) * machine_.between.latency_s + transfer_seconds(machine_.between, between) +
           rounds_of(largest) * machine_.inside.latency_s + transfer_seconds(machine_.inside, inside);
  }

  /// Rank i > 0 sends bytes[i] to rank 0.
  double gather_seconds(const std::vector<double>& bytes) const {
    double inside = 0, between = 0;
    for (size_t i = 1; i < bytes.size(); ++i) (nodes_[i] == nodes_[0] ? inside : between) += bytes[i];
    return (inside > 0 ? machine_.inside.latency_s + transfer_seconds(machine_.inside, inside) : 0) +
           (between > 0 ? machine_.between.latency_s + transfer_seconds(machine_.between, between) : 0);
  }

 private:
  const MachineFigures& machine_;
  std::vector<int> nodes_;         // of each tp index
  std::map<int, size_t> members_;  // by node
};

/// The slowest rank of a stage: its reads, its operations.
struct RankWork {
  double read_s = 0;
  double compute_s = 0;
  double seconds() const { return std::max(read_s, compute_s); }
};

RankWork work_of(const MachineFigures& machine, const ModelConfig& config, const SizedLayout& sized, int rank,
                 const StepRows& rows) {
  const Layout& layout = sized.layout;
  const SizedLayout::RankBytes& bytes = sized.ranks[static_cast<size_t>(rank)];
  const DType compute = sized.types.compute;
  const auto tp = static_cast<size_t>(layout.tp_index_of(rank));
  const double share = share_of(machine, layout, rank);
  const double element = static_cast<double>(size_of(compute));
  const auto weights = static_cast<double>(bytes.weights);
  const double head =
      layout.is_last_stage(rank) ? static_cast<double>(layout.vocab_rows[tp].size() * config.hidden_size) * element : 0;
  const double kv_token = static_cast<double>(bytes.kv_block) / kBlockTokens;
  const auto num_layers = static_cast<double>(layout.stage_layers[static_cast<size_t>(layout.stage_of(rank))].size());
  const double query_dims =
      static_cast<double>(heads_of(config, layout.attention_leaves[tp]).size() * config.head_dim) * num_layers;
  constexpr double kScoresAndSums = 2;  // q.k and p.v
  const double operations = kMultiplyAdd * (rows.rows * (weights - head) / element + rows.sampled * head / element +
                                            rows.rows * rows.keys_per_row * query_dims * kScoresAndSums);
  return {(weights + rows.kv_tokens * kv_token) / (machine.memory_bytes_per_s * share * kReachedBandwidth),
          operations / (machine.ops_per_s(compute) * share * kReachedRate)};
}

/// Hidden rows of every tp index to the next stage, all at once; pairs on one node use its own link.
double hop_seconds(const MachineFigures& machine, const Layout& layout, int stage, double bytes) {
  std::map<int, int> crossing;  // pairs into each node
  double inside = 0;
  for (int tp = 0; tp < layout.tp; ++tp) {
    const int from = node_of(machine, layout.rank_of(stage, tp)), to = node_of(machine, layout.rank_of(stage + 1, tp));
    if (from == to)
      inside = machine.inside.latency_s + transfer_seconds(machine.inside, bytes);
    else
      ++crossing[to];
  }
  double between = 0;
  for (const auto& [node, pairs] : crossing)
    between = std::max(between, machine.between.latency_s + transfer_seconds(machine.between, pairs * bytes));
  return std::max(inside, between);
}

}  // namespace

std::string_view to_string(Cost cost) {
  switch (cost) {
    case Cost::kReads: return "reads of weights and KV";
    case Cost::kArithmetic: return "arithmetic";
    case Cost::kLaunches: return "kernel launches";
    case Cost::kReduceInside: return "all-reduces inside a node";
    case Cost::kReduceBetween: return "all-reduces between nodes";
    case Cost::kLogits: return "gathering logits";
    case Cost::kHops: return "hops between stages";
    case Cost::kBubble: return "waiting for the slowest stage";
  }
  return "";
}

double StepTime::total() const { return std::accumulate(seconds.begin(), seconds.end(), 0.0); }

Cost StepTime::largest() const { return static_cast<Cost>(std::ranges::max_element(seconds) - seconds.begin()); }

StepTime& StepTime::operator+=(const StepTime& other) {
  for (size_t i = 0; i < seconds.size(); ++i) seconds[i] += other.seconds[i];
  return *this;
}

bool crosses_nodes(const MachineFigures& machine, const Layout& layout, int stage) {
  return Group(machine, layout, stage).crosses_nodes();
}

double share_of(const MachineFigures& machine, const Layout& layout, int rank) {
  if (machine.owner == Owner::kRank) return 1;
  const int first = node_of(machine, rank) * machine.ranks_per_node;
  return 1.0 / std::min(machine.ranks_per_node, layout.num_ranks() - first);
}

double all_reduce_seconds(const MachineFigures& machine, const Layout& layout, int stage,
                          const comm::TreeSchedule& schedule, double element_count) {
  if (layout.tp == 1) return 0;
  const Group group(machine, layout, stage);
  std::vector<double> whole, slices;
  for (int tp = 0; tp < layout.tp; ++tp) {
    const auto i = static_cast<size_t>(tp);
    const int num_nodes = schedule.first_node[i + 1] - schedule.first_node[i];
    whole.push_back(num_nodes * element_count * kFloatBytes);
    slices.push_back(whole.back() / layout.tp);  // to one other rank
  }
  const double at_once = group.all_gather_seconds(whole);
  if (machine.device != DeviceKind::kCpu) return at_once;
  const std::vector<double> sums(whole.size(), element_count * kFloatBytes / layout.tp);
  return std::min(at_once, group.exchange_seconds(slices) + group.all_gather_seconds(sums));
}

SizedLayout count_bytes(const ModelConfig& config, const Layout& layout, ComputeTypes types) {
  SizedLayout sized{layout, types, {}};
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    // Stages with as many layers hold as much, but for the last one.
    int twin = 0;
    while (twin < rank && (layout.tp_index_of(twin) != layout.tp_index_of(rank) || layout.is_last_stage(rank) ||
                           layout.stage_layers[static_cast<size_t>(layout.stage_of(twin))].size() !=
                               layout.stage_layers[static_cast<size_t>(layout.stage_of(rank))].size()))
      ++twin;
    if (twin < rank)
      sized.ranks.push_back(sized.ranks[static_cast<size_t>(twin)]);
    else
      sized.ranks.push_back({weight_bytes(config, layout, rank, types.compute).resident,
                             kv_block_bytes(config, layout, rank, types.cache)});
  }
  return sized;
}

StepTime stage_time(const MachineFigures& machine, const ModelConfig& config, const SizedLayout& sized, int stage,
                    const StepRows& rows) {
  const Layout& layout = sized.layout;
  StepTime time;
  RankWork slowest;
  for (int tp = 0; tp < layout.tp; ++tp) {
    const RankWork work = work_of(machine, config, sized, layout.rank_of(stage, tp), rows);
    if (work.seconds() > slowest.seconds()) slowest = work;
  }
  time[slowest.read_s >= slowest.compute_s ? Cost::kReads : Cost::kArithmetic] = slowest.seconds();

  const auto num_layers = static_cast<double>(layout.stage_layers[static_cast<size_t>(stage)].size());
  time[Cost::kLaunches] = num_layers * machine.layer_launch_s;

  const Group group(machine, layout, stage);
  const double elements = rows.rows * static_cast<double>(config.hidden_size);
  if (layout.tp > 1) {
    const Cost kind = group.crosses_nodes() ? Cost::kReduceBetween : Cost::kReduceInside;
    for (const auto* leaves : {&layout.attention_leaves, &layout.mlp_leaves}) {
      const comm::TreeSchedule schedule = comm::make_tree_schedule(leaves->back().end, *leaves);
      time[kind] += num_layers * all_reduce_seconds(machine, layout, stage, schedule, elements);
    }
  }
  if (stage + 1 < layout.pp) {
    time[Cost::kHops] = hop_seconds(machine, layout, stage, elements * kFloatBytes);
    return time;
  }
  std::vector<double> logits;
  for (const Range& vocabulary : layout.vocab_rows)
    logits.push_back(rows.sampled * static_cast<double>(vocabulary.size()) * kFloatBytes);
  time[Cost::kLogits] = group.gather_seconds(logits);
  if (layout.num_ranks() > 1) {  // the sampled ids, to the ranks of the first stage
    const bool far = node_of(machine, layout.rank_of(stage, 0)) != 0 || crosses_nodes(machine, layout, 0);
    time[Cost::kHops] = far ? machine.between.latency_s : machine.inside.latency_s;
  }
  return time;
}

}  // namespace chorale::parallel
