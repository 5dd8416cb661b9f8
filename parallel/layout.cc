#include "parallel/layout.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

constexpr int kMaxLeaves = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// First item of leaf `leaf` when item i of n belongs to leaf floor(i * num_leaves / n).
int64_t first_item(int64_t n, int num_leaves, int leaf) { return ceil_div(leaf * n, num_leaves); }

Range items_of(int64_t n, int num_leaves, comm::LeafRange leaves) {
  return {first_item(n, num_leaves, leaves.begin), first_item(n, num_leaves, leaves.end)};
}

int64_t num_mlp_units(const ModelConfig& config) { return ceil_div(config.intermediate_size, kMlpUnit); }

/// Weights of one layer in elements: the unit in which stages are balanced, since decode time is the time to read them.
int64_t layer_cost(const ModelConfig& config) {
  const int64_t q = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv = int64_t{config.num_kv_heads} * config.head_dim;
  const int64_t mlp = (config.mlp == MlpKind::kGated ? 3 : 2) * config.intermediate_size;
  return config.hidden_size * (2 * q + 2 * kv + mlp);
}

/// The split of `num_layers` equal layers into `pp` stages with the smallest largest stage, where the first stage also
/// reads an embedding row (cost `head`) and the last runs lm_head (cost `tail`). Every stage has a layer. Among equals,
/// later stages get fewer layers.
std::vector<Range> balance(int num_layers, int pp, int64_t layer, int64_t head, int64_t tail) {
  const int64_t total = layer * num_layers + head + tail;
  int64_t low = ceil_div(total, pp), high = total;  // smallest feasible maximum, by bisection
  const auto fill = [&](int64_t limit, std::vector<Range>* out) {
    int next = 0;
    for (int stage = 0; stage < pp; ++stage) {
      const int64_t extra = (stage == 0 ? head : 0) + (stage == pp - 1 ? tail : 0);
      const int left_for_others = pp - 1 - stage;
      int64_t count = std::max<int64_t>(1, (limit - extra) / layer);
      count = std::min<int64_t>(count, num_layers - next - left_for_others);
      if (extra + count * layer > limit) return false;
      if (out != nullptr) out->push_back({next, next + count});
      next += static_cast<int>(count);
    }
    return next == num_layers;
  };
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (fill(middle, nullptr))
      high = middle;
    else
      low = middle + 1;
  }
  std::vector<Range> stages;
  CHECK(fill(low, &stages));
  return stages;
}

std::vector<Range> stages_by_hand(int num_layers, const std::vector<int>& counts) {
  std::vector<Range> stages;
  int64_t next = 0;
  for (int count : counts) {
    if (count < 1) fail(ErrorCode::kInvalidArgument, "--stages: every stage needs at least one layer, got {}", count);
    stages.push_back({next, next + count});
    next += count;
  }
  if (next != num_layers)
    fail(ErrorCode::kInvalidArgument, "--stages: {} add up to {} layers, the model has {}", fmt::join(counts, ","),
         next, num_layers);
  return stages;
}

/// Contiguous runs of `num_items` in proportion to `weights` (equal when empty); a run may be empty.
std::vector<Range> proportional(int64_t num_items, int num_ranks, const std::vector<double>& weights) {
  double total = 0;
  for (int r = 0; r < num_ranks; ++r) total += weights.empty() ? 1.0 : weights[static_cast<size_t>(r)];
  std::vector<Range> runs;
  double sum = 0;
  int64_t begin = 0;
  for (int r = 0; r < num_ranks; ++r) {
    sum += weights.empty() ? 1.0 : weights[static_cast<size_t>(r)];
    const auto end =
        r + 1 == num_ranks ? num_items : static_cast<int64_t>(static_cast<double>(num_items) * sum / total + 0.5);
    runs.push_back({begin, std::clamp(end, begin, num_items)});
    begin = runs.back().end;
  }
  return runs;
}

Range scaled(Range items, int64_t each) { return {items.begin * each, items.end * each}; }

}  // namespace

int num_attention_leaves(const ModelConfig& config) { return std::min(config.num_heads, kMaxLeaves); }

int num_mlp_leaves(const ModelConfig& config) {
  return static_cast<int>(std::min<int64_t>(num_mlp_units(config), kMaxLeaves));
}

Range heads_of(const ModelConfig& config, comm::LeafRange leaves) {
  return items_of(config.num_heads, num_attention_leaves(config), leaves);
}

Range mlp_columns_of(const ModelConfig& config, comm::LeafRange leaves) {
  const Range units = items_of(num_mlp_units(config), num_mlp_leaves(config), leaves);
  return {std::min(units.begin * kMlpUnit, config.intermediate_size),
          std::min(units.end * kMlpUnit, config.intermediate_size)};
}

Range kv_heads_of(const ModelConfig& config, Range heads) {
  if (heads.size() == 0) return {0, 0};
  const int64_t group = config.num_heads / config.num_kv_heads;
  return {heads.begin / group, (heads.end - 1) / group + 1};
}

Layout make_layout(const ModelConfig& config, const LayoutRequest& request) {
  if (request.tp < 1 || request.pp < 1)
    fail(ErrorCode::kInvalidArgument, "tp={} and pp={} must both be at least 1", request.tp, request.pp);
  const int most_tp = std::min(num_attention_leaves(config), num_mlp_leaves(config));
  if (request.tp > most_tp)
    fail(ErrorCode::kInvalidArgument,
         "tp={} is more than this model can be cut into: it has {} attention leaves and {} MLP leaves; use tp <= {}",
         request.tp, num_attention_leaves(config), num_mlp_leaves(config), most_tp);
  if (request.pp > config.num_layers)
    fail(ErrorCode::kInvalidArgument, "pp={} is more than the model's {} layers; use pp <= {}", request.pp,
         config.num_layers, config.num_layers);
  if (!request.stages.empty() && static_cast<int>(request.stages.size()) != request.pp)
    fail(ErrorCode::kInvalidArgument, "--stages names {} stages, pp is {}", request.stages.size(), request.pp);
  if (!request.shares.empty() && static_cast<int>(request.shares.size()) != request.tp)
    fail(ErrorCode::kInvalidArgument, "--shares names {} ranks, tp is {}", request.shares.size(), request.tp);
  for (double share : request.shares)
    if (!(share > 0) || share > 1e6)
      fail(ErrorCode::kInvalidArgument, "--shares: {} is not a positive number up to 1e6", share);

  Layout layout;
  layout.tp = request.tp;
  layout.pp = request.pp;
  layout.stage_layers = request.stages.empty() ? balance(config.num_layers, request.pp, layer_cost(config),
                                                         config.hidden_size, config.vocab_size * config.hidden_size)
                                               : stages_by_hand(config.num_layers, request.stages);
  layout.attention_leaves = comm::share_leaves(num_attention_leaves(config), request.tp, request.shares);
  layout.mlp_leaves = comm::share_leaves(num_mlp_leaves(config), request.tp, request.shares);
  for (Range chunks : proportional(ceil_div(config.vocab_size, kVocabChunk), request.tp, request.shares))
    layout.vocab_rows.push_back({std::min(chunks.begin * kVocabChunk, config.vocab_size),
                                 std::min(chunks.end * kVocabChunk, config.vocab_size)});
  return layout;
}

void Layout::encode(ByteWriter& out) const {
  out.put(tp);
  out.put(pp);
  for (const Range& layers : stage_layers) {
    out.put(layers.begin);
    out.put(layers.end);
  }
  for (const auto* runs : {&attention_leaves, &mlp_leaves})
    for (const comm::LeafRange& run : *runs) {
      out.put(run.begin);
      out.put(run.end);
    }
  for (const Range& rows : vocab_rows) {
    out.put(rows.begin);
    out.put(rows.end);
  }
}

Layout Layout::decode(ByteReader& in) {
  constexpr int kMaxRanksOfAnAxis = 4096;
  Layout layout;
  in.get(layout.tp);
  in.get(layout.pp);
  if (layout.tp < 1 || layout.pp < 1 || layout.tp > kMaxRanksOfAnAxis || layout.pp > kMaxRanksOfAnAxis)
    fail(ErrorCode::kCorrupt, "layout tp={} pp={} is out of range", layout.tp, layout.pp);
  const auto get_range = [&in] {
    Range range;
    in.get(range.begin);
    in.get(range.end);
    return range;
  };
  for (int i = 0; i < layout.pp; ++i) layout.stage_layers.push_back(get_range());
  for (auto* runs : {&layout.attention_leaves, &layout.mlp_leaves})
    for (int i = 0; i < layout.tp; ++i) {
      comm::LeafRange run;
      in.get(run.begin);
      in.get(run.end);
      runs->push_back(run);
    }
  for (int i = 0; i < layout.tp; ++i) layout.vocab_rows.push_back(get_range());
  return layout;
}

Slice slice_of(const ModelConfig& config, const Layout& layout, Member member, ShardKind shard, int tp_index) {
  CHECK(tp_index >= 0 && tp_index < layout.tp);
  const auto tp = static_cast<size_t>(tp_index);
  const Shape shape = expected_shape(config, member);
  const Range all_rows{0, shape[0]};
  const Range all_columns{0, shape.num_dims() > 1 ? shape[1] : 1};
  const Range heads = heads_of(config, layout.attention_leaves[tp]);
  const Range mlp = mlp_columns_of(config, layout.mlp_leaves[tp]);
  switch (shard) {
    case ShardKind::kWhole: return {all_rows, all_columns};
    case ShardKind::kQueryHeads: return {scaled(heads, config.head_dim), all_columns};
    case ShardKind::kKvHeads: return {scaled(kv_heads_of(config, heads), config.head_dim), all_columns};
    case ShardKind::kHeadColumns: return {all_rows, scaled(heads, config.head_dim)};
    case ShardKind::kMlpRows: return {mlp, all_columns};
    case ShardKind::kMlpColumns: return {all_rows, mlp};
    case ShardKind::kVocabRows: return {layout.vocab_rows[tp], all_columns};
    case ShardKind::kLookup: return {{0, 0}, all_columns};
  }
  return {};
}

WeightBytes weight_bytes(const ModelConfig& config, const Layout& layout, int rank, DType compute) {
  const Architecture& architecture = architecture_of(config);
  const Range layers = layout.stage_layers[static_cast<size_t>(layout.stage_of(rank))];
  WeightBytes total;
  for (const WeightSpec& spec : architecture.weights(config)) {
    const Slice slice = slice_of(config, layout, spec.member, spec.shard, layout.tp_index_of(rank));
    const bool is_vector = expected_shape(config, spec.member).num_dims() == 1;
    const auto bytes =
        static_cast<uint64_t>(slice.rows.size() * slice.columns.size()) * size_of(is_vector ? DType::kF32 : compute);
    uint64_t times = 0;
    if (is_layer_member(spec.member))
      times = static_cast<uint64_t>(layers.size());
    else if (spec.shard != ShardKind::kLookup)  // what stands after the layers: final norm, lm_head
      times = layout.is_last_stage(rank) ? 1 : 0;
    total.resident += bytes * times;
  }
  total.read_per_token = total.resident;
  return total;
}

uint64_t kv_block_bytes(const ModelConfig& config, const Layout& layout, int rank, DType cache) {
  const Range heads = heads_of(config, layout.attention_leaves[static_cast<size_t>(layout.tp_index_of(rank))]);
  const Range layers = layout.stage_layers[static_cast<size_t>(layout.stage_of(rank))];
  constexpr uint64_t kKeyAndValue = 2, kPadding = 16;
  const uint64_t padded_head_dim = (static_cast<uint64_t>(config.head_dim) + kPadding - 1) / kPadding * kPadding;
  return kKeyAndValue * kBlockTokens * static_cast<uint64_t>(kv_heads_of(config, heads).size()) * padded_head_dim *
         size_of(cache) * static_cast<uint64_t>(layers.size());
}

}  // namespace chorale::parallel
