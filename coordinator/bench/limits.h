// What a model could reach on a machine: decode reads every weight once a step and every key once a token, prefill
// multiplies every weight once a token. `bench engine` divides its rates by these limits; they say nothing about a
// network or a pipeline.
#pragma once

#include "parallel/cluster_plan.h"

namespace chorale::coordinator::bench {

/// What one step and one token cost, over all ranks of a plan. An operation is a multiply or an add.
struct ModelCost {
  double weight_bytes_per_step = 0;       // read once, however many rows the step has
  double kv_bytes_per_key = 0;            // read for each token of context of each sequence of a decode step
  double layer_operations_per_token = 0;  // matrices of the layers
  double head_operations_per_row = 0;     // lm_head, for rows that are sampled
  double operations_per_key = 0;          // attention: one query token against one key, over all layers and heads
};
ModelCost cost_of(const parallel::ModelConfig& config, double weight_bytes_per_step, double kv_bytes_per_key);
/// Of a plan: what all its ranks together read. Throws Error{kUnsupported} for an unknown architecture.
ModelCost cost_of(const parallel::ClusterPlan& plan);

/// Tokens/s of `streams` sequences that decode together at `mean_context` tokens: the smaller of what bandwidth and
/// peak allow. `peak_gops` 0: not known, the bandwidth alone decides; `read_gbps` 0: 0, not known.
double decode_limit(const ModelCost& cost, int streams, double mean_context, double read_gbps, double peak_gops);
/// Tokens/s of one prompt whose last row is sampled: what the peak allows.
double prefill_limit(const ModelCost& cost, int prompt_tokens, double peak_gops);

}  // namespace chorale::coordinator::bench
