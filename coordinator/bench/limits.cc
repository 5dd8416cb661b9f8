#include "coordinator/bench/limits.h"

#include <algorithm>

namespace chorale::coordinator::bench {
namespace {
constexpr double kGiga = 1e9;
constexpr double kMultiplyAdd = 2;  // operations
}  // namespace

ModelCost cost_of(const parallel::ClusterPlan& plan) {
  double weights = 0, kv_block = 0;
  for (int rank = 0; rank < plan.layout.num_ranks(); ++rank) {
    const auto of_rank = parallel::weight_bytes(plan.config, plan.layout, rank, plan.numerics.compute);
    weights += static_cast<double>(of_rank.read_per_token);
    kv_block += static_cast<double>(parallel::kv_block_bytes(plan.config, plan.layout, rank, plan.numerics.cache));
  }
  return cost_of(plan.config, weights, kv_block / parallel::kBlockTokens);
}

ModelCost cost_of(const parallel::ModelConfig& config, double weight_bytes_per_step, double kv_bytes_per_key) {
  ModelCost cost;
  cost.weight_bytes_per_step = weight_bytes_per_step;
  cost.kv_bytes_per_key = kv_bytes_per_key;
  const auto hidden = static_cast<double>(config.hidden_size);
  const double query_dim = config.num_heads * config.head_dim;
  const double kv_dim = config.num_kv_heads * config.head_dim;
  const double mlp_matrices = config.mlp == parallel::MlpKind::kGated ? 3 : 2;
  const double layer_weights =
      hidden * (2 * query_dim + 2 * kv_dim) + mlp_matrices * hidden * static_cast<double>(config.intermediate_size);
  cost.layer_operations_per_token = kMultiplyAdd * config.num_layers * layer_weights;
  cost.head_operations_per_row = kMultiplyAdd * hidden * static_cast<double>(config.vocab_size);
  cost.operations_per_key = kMultiplyAdd * config.num_layers * 2 * query_dim;  // q.k and p.v
  return cost;
}

double decode_limit(const ModelCost& cost, int streams, double mean_context, double read_gbps, double peak_gops) {
  if (read_gbps <= 0) return 0;
  const double read_bytes = cost.weight_bytes_per_step + streams * mean_context * cost.kv_bytes_per_key;
  const double read_seconds = read_bytes / (read_gbps * kGiga);
  const double operations =
      cost.layer_operations_per_token + cost.head_operations_per_row + cost.operations_per_key * mean_context;
  const double compute_seconds = peak_gops > 0 ? streams * operations / (peak_gops * kGiga) : 0;
  return streams / std::max(read_seconds, compute_seconds);
}

double prefill_limit(const ModelCost& cost, int prompt_tokens, double peak_gops) {
  const double mean_context = (prompt_tokens + 1) / 2.0;  // causal: token i sees i keys
  const double operations = prompt_tokens * (cost.layer_operations_per_token + cost.operations_per_key * mean_context) +
                            cost.head_operations_per_row;
  return prompt_tokens * peak_gops * kGiga / operations;
}

}  // namespace chorale::coordinator::bench
