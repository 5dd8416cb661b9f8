// Layout: which rank holds which layers (pipeline stages), query heads, MLP columns and vocabulary rows (tensor
// parallel). Pure arithmetic over a ModelConfig; it reads no file and moves no byte. Rank = stage * tp + tp index.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/base/bytes.h"
#include "comm/reduction_tree.h"
#include "parallel/architecture.h"
#include "parallel/model_config.h"

namespace chorale::parallel {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;  // exclusive
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

/// Leaves of the two row-parallel weights (N2), fixed per model.
int num_attention_leaves(const ModelConfig& config);
int num_mlp_leaves(const ModelConfig& config);
/// Query heads of a leaf (or of a contiguous run of leaves), columns of w_down likewise.
Range heads_of(const ModelConfig& config, comm::LeafRange leaves);
Range mlp_columns_of(const ModelConfig& config, comm::LeafRange leaves);
/// KV heads that the query heads use.
Range kv_heads_of(const ModelConfig& config, Range heads);
constexpr int64_t kVocabChunk = 1024;  // lm_head splits at multiples of this; also the unit of log-sum-exp (N8)
constexpr int64_t kMlpUnit = 32;       // columns of w_down that always stay together

struct LayoutRequest {
  int tp = 1;
  int pp = 1;
  std::vector<int> stages;     // layers per stage by hand; empty: balanced by cost
  std::vector<double> shares;  // weight of each tp index; empty: equal
};

struct Layout {
  int tp = 1;
  int pp = 1;
  std::vector<Range> stage_layers;                // [pp]
  std::vector<comm::LeafRange> attention_leaves;  // [tp]
  std::vector<comm::LeafRange> mlp_leaves;        // [tp]
  std::vector<Range> vocab_rows;                  // [tp]; may be empty

  int num_ranks() const { return tp * pp; }
  int stage_of(int rank) const { return rank / tp; }
  int tp_index_of(int rank) const { return rank % tp; }
  int rank_of(int stage, int tp_index) const { return stage * tp + tp_index; }
  bool is_first_stage(int rank) const { return stage_of(rank) == 0; }
  bool is_last_stage(int rank) const { return stage_of(rank) == pp - 1; }
  void encode(ByteWriter& out) const;
  static Layout decode(ByteReader& in);
  bool operator==(const Layout&) const = default;
};

/// Throws Error{kInvalidArgument} with both numbers when the model cannot be cut that way.
Layout make_layout(const ModelConfig& config, const LayoutRequest& request);

/// The part of a weight that tp index `tp_index` holds: rows and columns of the [out, in] matrix (vectors: rows). Heads
/// are whole.
struct Slice {
  Range rows;
  Range columns;
};
Slice slice_of(const ModelConfig& config, const Layout& layout, Member member, ShardKind shard, int tp_index);

/// Bytes of weights that `rank` keeps in memory (compute dtype for matrices, float32 for vectors), and that it reads to
/// make one token for one sequence (the same but for lookups).
struct WeightBytes {
  uint64_t resident = 0;
  uint64_t read_per_token = 0;
};
WeightBytes weight_bytes(const ModelConfig& config, const Layout& layout, int rank, DType compute);

/// Bytes of one KV block (16 tokens, K and V) over the layers and KV heads of `rank`, head_dim padded to a multiple of
/// 16 as a GPU's cache has it (a CPU's, or one of float32, takes less for keys that are padded).
uint64_t kv_block_bytes(const ModelConfig& config, const Layout& layout, int rank, DType cache);
constexpr int kBlockTokens = 16;

}  // namespace chorale::parallel
