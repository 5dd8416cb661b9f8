// Self-attention of a decoder over the paged cache: fused q, k and v, optional norms of their heads, rotary positions,
// then the rank's query heads against the KV heads it stores (GQA), then wo. K and V of this step are written first and
// read from the cache (N6).
#pragma once

#include <memory>
#include <vector>

#include "worker/layers/linear.h"
#include "worker/ops/rope.h"

namespace chorale::worker {

/// cos and sin of a model's positions; nullptr for models without rotary positions. Layers of a model share one.
std::shared_ptr<const RopeTable> make_rope(const StageParts& parts);

class Attention {
 public:
  Attention(const StageParts& parts, int64_t layer, std::shared_ptr<const RopeTable> rope);
  /// residual += attention(x) wo^T (+ bias), then normed = next(residual). x and normed: the compute type [num_tokens,
  /// hidden], which may be one matrix; residual: f32 [num_tokens, hidden].
  void add_to(Step& step, MatrixView x, MatrixView residual, const Norm& next, MatrixView normed) const;

 private:
  void normalise_heads(Step& step, MatrixView heads, const float* weight) const;  // [rows, n * head_dim], in place
  void rotate(Step& step, MatrixView heads) const;                                // likewise

  int head_dim_;
  int num_heads_;     // local
  int num_kv_heads_;  // local
  int window_;
  float eps_;
  DType compute_;
  Tensor kv_head_of_;  // i32 [num_heads_]
  ColumnParallelLinear qkv_;
  const float* q_norm_;  // [head_dim] or null
  const float* k_norm_;
  std::shared_ptr<const RopeTable> rope_;
  KvLayer cache_;
  RowParallelLinear wo_;
};

}  // namespace chorale::worker
