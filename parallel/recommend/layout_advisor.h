// Which layout suits a model on given machines: tries every tp x pp of their ranks, says which fit into memory and how
// fast each should be, and recommends one. Called by `chorale plan --recommend`. Estimates from figures: it opens
// nothing and measures nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/recommend/machine_figures.h"
#include "parallel/recommend/step_cost.h"

namespace chorale::parallel {

/// What the world is to do.
struct Workload {
  ComputeTypes types;
  int64_t max_model_len = 0;  // tokens
  int max_num_seqs = 64;
  int max_num_batched_tokens = 512;    // rows of a prefill step
  double mean_context = 0;             // tokens that a running sequence holds
  uint64_t kv_cache_memory_bytes = 0;  // of each rank; 0: what there is room for
};

enum class Fit : uint8_t {
  kAll,   // weights, and KV for max_num_seqs sequences of max_model_len at a time
  kSome,  // weights, and KV for one such sequence at least
  kNone,
};
std::string_view to_string(Fit fit);  // "all"

struct LayoutEstimate {
  int tp = 1;
  int pp = 1;
  Fit fit = Fit::kNone;
  uint64_t weight_bytes = 0;           // of the fullest rank
  uint64_t missing_bytes = 0;          // on the fullest rank, for all that was asked; 0 where all fits
  uint64_t missing_for_one_bytes = 0;  // the same for one sequence of max_model_len
  int64_t kv_tokens = 0;               // room, at most what the workload can use
  int num_sequences = 0;               // of max_model_len at a time
  int num_running = 0;                 // of mean_context at a time: what the estimates of a full batch are for
  StepTime one;                        // of a token while one sequence runs
  StepTime full;                       // of a token of each of num_running sequences
  double tokens_per_s = 0;             // of all of them together
  double prefill_tokens_per_s = 0;
  int num_ranks() const { return tp * pp; }
};

/// One layout. The times of one that does not fit are those of one sequence.
LayoutEstimate estimate(const MachineFigures& machine, const ModelConfig& config, const Workload& workload,
                        const Layout& layout);

struct Advice {
  std::vector<LayoutEstimate> layouts;  // better fit first, then faster; what fits nowhere: less missing first
  size_t recommended = 0;               // of layouts
  std::vector<std::string> why;         // a sentence each
};

/// Of the layouts with the best fit, the one with the most tokens/s, or one with fewer ranks that is at most 2 %
/// slower. Throws Error{kResourceExhausted} when one sequence fits with none: by how much, and what would help.
Advice advise(const MachineFigures& machine, const ModelConfig& config, const Workload& workload);

}  // namespace chorale::parallel
