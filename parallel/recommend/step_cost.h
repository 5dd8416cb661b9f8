// How long a stage of a layout would take for one step on given figures, by cause. Pure arithmetic: a roofline
// (weights, KV and operations of the slowest rank) plus the exchanges that the step makes. An estimate, never a
// promise; the layout advisor adds stages up.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "parallel/layout.h"
#include "parallel/recommend/machine_figures.h"

namespace chorale::parallel {

/// What the time of a step goes into.
enum class Cost : uint8_t {
  kReads,          // weights and KV out of memory, where that takes longer than the arithmetic
  kArithmetic,     // where that takes longer than the reads
  kLaunches,       // kernels' least times
  kReduceInside,   // all-reduces of tp groups inside a node
  kReduceBetween,  // all-reduces of tp groups that cross the network
  kLogits,         // slices of logits on their way to the last stage's leader
  kHops,           // activations to the next stage, sampled tokens to the first
  kBubble,         // stages that wait for slower ones
};
constexpr int kNumCosts = 8;
std::string_view to_string(Cost cost);  // "reads of weights and KV"

struct StepTime {
  std::array<double, kNumCosts> seconds{};
  double& operator[](Cost cost) { return seconds[static_cast<size_t>(cost)]; }
  double operator[](Cost cost) const { return seconds[static_cast<size_t>(cost)]; }
  double total() const;
  Cost largest() const;
  StepTime& operator+=(const StepTime& other);
};

/// The rows of one step.
struct StepRows {
  double rows = 1;          // tokens computed
  double sampled = 1;       // of them, rows that reach lm_head
  double kv_tokens = 0;     // of the cache, read once each
  double keys_per_row = 0;  // that one row attends to
};

/// What the ranks compute and keep in.
struct ComputeTypes {
  DType compute = DType::kBF16;
  DType cache = DType::kBF16;
};

/// A layout and what its ranks hold, counted once.
struct SizedLayout {
  struct RankBytes {
    uint64_t weights = 0;
    uint64_t kv_block = 0;
  };
  Layout layout;
  ComputeTypes types;
  std::vector<RankBytes> ranks;
};
SizedLayout count_bytes(const ModelConfig& config, const Layout& layout, ComputeTypes types);

// Parts of the figures that programs reach: this project's CPU kernels reach 82 % of the measured bandwidth and 77 % of
// the measured peak (docs/results/peers.md); figures of datasheets are further from what can be measured.
constexpr double kReachedBandwidth = 0.8;
constexpr double kReachedRate = 0.6;
constexpr double kReachedLink = 0.8;

/// Of `stage`, its exchanges with the next one included. The ranks stand on the nodes in order.
StepTime stage_time(const MachineFigures& machine, const ModelConfig& config, const SizedLayout& sized, int stage,
                    const StepRows& rows);

/// An all-reduce in the tree's order (N3) of `element_count` floats over the ranks of `stage`, as the communicators do
/// it: every rank's nodes go to all others in one all-gather, on CPUs also by slices whose sums are gathered again,
/// whichever is faster.
double all_reduce_seconds(const MachineFigures& machine, const Layout& layout, int stage,
                          const comm::TreeSchedule& schedule, double element_count);

/// True if the ranks of the stage are on more than one node.
bool crosses_nodes(const MachineFigures& machine, const Layout& layout, int stage);

/// What of the figures `rank` has for itself: 1, or one part of its node's ranks.
double share_of(const MachineFigures& machine, const Layout& layout, int rank);

}  // namespace chorale::parallel
