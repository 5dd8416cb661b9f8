// Scaled dot-product attention over the paged cache: one function of (query row, keys) for prefill chunks and decode
// rows, mixed in one batch (N6). Online softmax as in FlashAttention (arXiv:2205.14135), splits as in Flash-Decoding,
// in a fixed order. Called by the attention layer; it writes no cache.
#pragma once

#include <span>
#include <vector>

#include "worker/kv/kv_cache.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

constexpr int kSplitKeys = 256;  // keys a split, at absolute positions

enum class AttentionMask {
  kCausal,  // key j is visible to position p iff 0 <= p - j (< window)
  kFull     // every key of the context is visible (encoders, cross-attention)
};

/// [n + 1] where each sequence's splits begin among those of all: prefix sums of ceil(context_len / kSplitKeys).
std::vector<int32_t> split_starts(std::span<const int32_t> context_len);

/// Sequence s owns query rows [query_start[s], query_start[s + 1]); they are its last positions: row r stands at
/// position context_len[s] - query_start[s + 1] + r. Its key j lies in block block_table[s][j / 16], offset j % 16.
///
/// For one query row and head: score_j = q . k_j (one chain, ascending in head_dim) * scale, then softcap * tanh(score
/// / softcap). A split starts from (max = -inf, sum = 0, acc = 0) and takes its blocks of 16 keys left to right:
///   m' = max(m, max_j score_j)   over visible keys, folded as a tree of 16 lanes
///   p_j = exp(score_j - m'), exactly +0 where masked;   a = exp(m - m')
///   sum = fma(sum, a, tree_16(p));   acc = acc * a, then acc = fma(p_j, v_j, acc) for visible j ascending
/// Splits (m1, s1, acc1), (m2, s2, acc2) fold left to right: m = max, e1 = exp(m1 - m), e2 = exp(m2 - m),
///   s = fma(s2, e2, s1 * e1), acc = fma(acc2, e2, acc1 * e1).   Blocks and splits without a visible key are skipped.
/// out = acc / sum; 0 for a row that sees no key. A sequence without context (context_len 0: padding) reads nothing of
/// the cache or the table, whatever its rows.
///
/// On a device the arrays may change between the launches of a captured graph, within max_splits, max_query_len and the
/// shapes: the launch depends on nothing else of a batch.
struct AttentionArgs {
  MatrixView q;                         // f32 [rows, num_heads * head_dim]
  KvLayer cache;                        // holds the context, this step's tokens included
  const int32_t* kv_head_of = nullptr;  // [num_heads] local KV head of each local query head, ascending
  int num_heads = 0;                    // local query heads
  int num_sequences = 0;
  const int32_t* query_start = nullptr;  // [num_sequences + 1], query_start[0] == 0, last == q.rows
  const int32_t* context_len =
      nullptr;  // [num_sequences] keys, the new ones included; 0, or >= the sequence's query rows (causal)
  const int32_t* block_table = nullptr;  // [num_sequences, block_table_stride]
  int64_t block_table_stride = 0;
  float scale = 1.0f;
  float softcap = 0.0f;  // 0: none
  int window = 0;        // 0: none
  AttentionMask mask = AttentionMask::kCausal;
  MatrixView out;  // f32 | bf16 | (devices) f16 [rows, num_heads * head_dim]

  // Only devices read these, and only speed depends on them. A sequence of few rows is cut: a warp takes each split and
  // leaves a partial in scratch.
  const int32_t* split_start = nullptr;        // [num_sequences + 1] split_starts()
  int max_splits = 0;                          // split_start[num_sequences] is at most this
  int max_query_len = 0;                       // no sequence has more rows
  int64_t partial_bytes = int64_t{256} << 20;  // of scratch; sequences whose partials find no room are not cut
};
void attention(OpContext& ctx, const AttentionArgs& args);

}  // namespace chorale::worker
