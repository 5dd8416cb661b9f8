#include "worker/layers/attention.h"

#include <cmath>

#include "worker/layers/rope_frequencies.h"
#include "worker/ops/attention.h"
#include "worker/ops/kv_write.h"
#include "worker/ops/rms_norm.h"

namespace chorale::worker {
namespace {
using parallel::Member;

parallel::Range local_heads(const StageParts& parts) {
  return parallel::heads_of(parts.config, parts.layout.attention_leaves[parts.tp_index()]);
}

Tensor make_kv_head_of(const StageParts& parts) {
  const parallel::Range heads = local_heads(parts);
  const int64_t first_kv = parallel::kv_heads_of(parts.config, heads).begin;
  const int64_t group = parts.config.num_heads / parts.config.num_kv_heads;
  Tensor kv_head_of(DType::kI32, {heads.size()});
  for (int64_t head = heads.begin; head < heads.end; ++head)
    kv_head_of.as<int32_t>()[head - heads.begin] = static_cast<int32_t>(head / group - first_kv);
  return parts.where ? copy_to_device(parts.where, kv_head_of) : std::move(kv_head_of);
}

}  // namespace

std::shared_ptr<const RopeTable> make_rope(const StageParts& parts) {
  if (parts.config.position != parallel::PositionKind::kRope) return nullptr;
  const RopeFrequencies frequencies = rope_frequencies(parts.config.rope);
  RopeTable table = make_rope_table(frequencies.inv_freq, parts.max_model_len, frequencies.attention_factor);
  if (parts.where) table = {copy_to_device(parts.where, table.cos), copy_to_device(parts.where, table.sin)};
  return std::make_shared<RopeTable>(std::move(table));
}

Attention::Attention(const StageParts& parts, int64_t layer, std::shared_ptr<const RopeTable> rope)
    : head_dim_(parts.config.head_dim),
      num_heads_(static_cast<int>(local_heads(parts).size())),
      num_kv_heads_(static_cast<int>(parallel::kv_heads_of(parts.config, local_heads(parts)).size())),
      window_(static_cast<int>(parts.config.sliding_window)),
      eps_(static_cast<float>(parts.config.norm_eps)),
      compute_(parts.compute),
      kv_head_of_(make_kv_head_of(parts)),
      qkv_(parts.weights.matrix(Member::kWq, layer), parts.weights.find_vector(Member::kWqBias, layer)),
      q_norm_(parts.weights.find_vector(Member::kQNorm, layer)),
      k_norm_(parts.weights.find_vector(Member::kKNorm, layer)),
      rope_(std::move(rope)),
      cache_(parts.kv.layer(static_cast<int>(layer - parts.layers().begin))),
      wo_(parts.weights.matrix(Member::kWo, layer), parts.weights.find_vector(Member::kWoBias, layer),
          parts.layout.attention_leaves, parts.group, parts.answer) {}

void Attention::normalise_heads(Step& step, MatrixView heads, const float* weight) const {
  if (weight != nullptr) rms_norm(step.op, {.x = heads, .weight = weight, .dim = head_dim_, .eps = eps_, .out = heads});
}

void Attention::rotate(Step& step, MatrixView heads) const {
  if (rope_ != nullptr)
    rope(step.op,
         {.x = heads, .positions = step.arrays.positions, .cos = rope_->cos, .sin = rope_->sin, .head_dim = head_dim_});
}

void Attention::add_to(Step& step, MatrixView x, MatrixView residual, const Norm& next, MatrixView normed) const {
  const Workspace::Scope scope(step.op.scratch);
  const int64_t q_cols = int64_t{num_heads_} * head_dim_, kv_cols = int64_t{num_kv_heads_} * head_dim_;
  const MatrixView qkv = take_matrix(step.op, DType::kF32, x.rows, q_cols + 2 * kv_cols);
  qkv_.forward(step, x, qkv);
  const MatrixView q = qkv.columns(0, q_cols);
  const MatrixView k = qkv.columns(q_cols, q_cols + kv_cols);
  const MatrixView v = qkv.columns(q_cols + kv_cols, q_cols + 2 * kv_cols);
  normalise_heads(step, q, q_norm_);
  normalise_heads(step, k, k_norm_);
  rotate(step, q);
  rotate(step, k);
  kv_write(step.op, {.k = k, .v = v, .slots = step.arrays.slots, .cache = cache_});
  const MatrixView mixed = take_matrix(step.op, compute_, x.rows, q_cols);
  attention(step.op, {.q = q,
                      .cache = cache_,
                      .kv_head_of = kv_head_of_.as<int32_t>(),
                      .num_heads = num_heads_,
                      .num_sequences = step.batch.num_chunks(),
                      .query_start = step.arrays.query_start,
                      .context_len = step.arrays.context_len,
                      .block_table = step.arrays.block_table,
                      .block_table_stride = step.batch.block_table_stride,
                      .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim_))),
                      .window = window_,
                      .out = mixed,
                      .split_start = step.arrays.split_start,
                      .max_splits = step.arrays.max_splits,
                      .max_query_len = step.arrays.max_query_len});
  wo_.add_to(step, mixed, residual, &next, normed);
}

}  // namespace chorale::worker
