// Attention on tensor cores, for 16-bit caches in fragment order (KvOrder::kFragments) and a head_dim that is a
// multiple of 16. Prefill and decode are the same code, instruction, splits and fold (N6).
//
// A warp owns a tile of 16 (query token, query head) pairs that read one KV head, token-major, so that the heads of a
// group fill the tile when there is one token; a tile that is not full is padded with zeros. It walks the blocks of 16
// keys left to right. With lane l, g = l / 4, t = l % 4, a lane holds rows g and g + 8 of the tile and, of a block's
// scores, keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9: what the product q k leaves is what the product p v takes. Keys and
// values are 16-byte loads straight from the cache; those of the next block are on their way while a block is computed.
//   A sequence of few tokens is cut: a warp takes one split of 256 keys after the other from the batch's list of work
//   and leaves (max, sum, acc) in scratch; attention_fold_kernel folds them. In a longer one, each warp goes through
//   all splits of its tile and folds as it goes, the total in shared memory. Same partials, same fold: same bits.
// Reads, for a tile and block of keys, 64 head_dim bytes (warps of a block share them in L1) and takes 4 head_dim / 16
// matrix instructions.
//
// Order and types (attention.h, N10). q is rounded to the cache's type. score = q . k on the tensor core, one chain of
// head_dim / 16 instructions ascending, then * scale in float32, tanh-capped where asked, everything in units of log 2:
// exp is 2^x. p is rounded to the cache's type for p v; its sum takes unrounded float32, a lane's keys of a row as
// sum = fma(sum, a, (p[2t] + p[2t+8]) + (p[2t+1] + p[2t+9])), and the 4 lanes meet at a split's end, t with t + 2, then
// t + 1. Values: one instruction a block and split, ascending. Accumulators are rescaled only when a row's maximum
// moved. What a tile's other rows see does not matter: a masked p is +0, a block or split that a row does not see
// leaves its state as it is. Values past the context are read as zeros; all others must be finite, even where a row
// does not see them. Other kinds of scores (additive bias) belong in ScoreRule, other shapes of visible keys in
// visible_keys().
#pragma once

#include <algorithm>

#include "worker/kernels/cuda/attention_fold.cuh"
#include "worker/ops/kernel.h"

namespace chorale::worker::inline SIMT::attention_mma {

constexpr int kSplitBlocks = kSplitKeys / kBlockTokens;

template <int kDim>
struct Geometry {
  static constexpr int kSteps = kDim / 16;           // matrix steps across the head
  static constexpr int kParts = kSteps > 8 ? 4 : 1;  // a block's keys are loaded in so many parts, also its values
  static constexpr int kChunk = kSteps / kParts;     // fragments of a part: 4 registers each
  static constexpr int kOutTiles = 2 * kSteps;       // 16 x 8 tiles of acc
  static constexpr unsigned kWarps = (kParts > 1) ? 2 : 4;
  static constexpr int kSharedQuery =
      (kParts > 1) ? kSteps * 32 : 0;  // fragments of q in shared memory, else registers
  static constexpr int kSharedBytes =
      static_cast<int>(sizeof(FragmentC)) * ((kOutTiles + 1) * 32 + kSharedQuery);  // a warp
};

/// Sixteen rows of q as operands of the matrix instruction, in registers or, where those are short, in shared memory.
template <typename T, int kDim>
struct Query {
  FragmentA in_registers[Geometry<kDim>::kSharedQuery > 0 ? 1 : Geometry<kDim>::kSteps];
  FragmentA* in_shared;  // [kSteps, 32]

  __device__ __forceinline__ void load(const Params<T>& p, const Tile& tile, const Row (&rows)[2]) {
    const float* q[2];  // padding reads a row that exists, so that no load waits for another
#pragma unroll
    for (int r = 0; r < 2; ++r)
      q[r] = p.batch.q.row(tile.query_start + (rows[r].token < 0 ? 0 : rows[r].token)) + rows[r].head * kDim +
             2 * (lane() % 4);
#pragma unroll(Geometry <kDim>::kSharedQuery > 0 ? 2 : Geometry <kDim>::kSteps)
    for (int step = 0; step < Geometry<kDim>::kSteps; ++step) {
      FragmentA a;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* at = q[i % 2] + 16 * step + 8 * (i / 2);
        const uint32_t pair = pack_pair<T>(at[0], at[1]);
        a.reg[i] = rows[i % 2].token < 0 ? 0u : pair;
      }
      if constexpr (Geometry<kDim>::kSharedQuery > 0)
        in_shared[step * 32 + lane()] = a;  // read by this lane only
      else
        in_registers[step] = a;
    }
  }
  __device__ __forceinline__ FragmentA at(int step) const {
    if constexpr (Geometry<kDim>::kSharedQuery > 0)
      return in_shared[step * 32 + lane()];
    else
      return in_registers[step];
  }
};

/// A part of a block's keys or values.
template <int kDim>
struct Fragments {
  Bytes16 step[Geometry<kDim>::kChunk];
  __device__ __forceinline__ void load(const Bytes16* block, int part) {
    const Bytes16* mine = block + lane();  // the steps are constant offsets from here
#pragma unroll
    for (int i = 0; i < Geometry<kDim>::kChunk; ++i) step[i] = mine[(part * Geometry<kDim>::kChunk + i) * 32];
  }
  /// Values of keys from `num_keys` on become zeros: nobody wrote them.
  __device__ __forceinline__ void clear_from(int num_keys) {
#pragma unroll
    for (int reg = 0; reg < 2; ++reg) {
      const int key = 2 * static_cast<int>(lane() % 4) + 8 * reg;
      const uint32_t keep = (key < num_keys ? 0x0000ffffu : 0u) | (key + 1 < num_keys ? 0xffff0000u : 0u);
#pragma unroll
      for (int i = 0; i < Geometry<kDim>::kChunk; ++i) {
        step[i].word[reg] &= keep;
        step[i].word[2 + reg] &= keep;
      }
    }
  }
};

/// (max, sum, acc) of a tile's 16 rows: this lane's two.
template <int kDim>
struct State {
  float max[2];
  float sum[2];  // of this lane's keys
  FragmentC acc[Geometry<kDim>::kOutTiles];

  __device__ __forceinline__ void clear() {
    max[0] = max[1] = -infinity();
    sum[0] = sum[1] = 0.0f;
#pragma unroll
    for (int i = 0; i < Geometry<kDim>::kOutTiles; ++i)
#pragma unroll
      for (int c = 0; c < 4; ++c) acc[i].value[c] = 0.0f;
  }
  /// The sums of whole rows.
  __device__ __forceinline__ void meet_sums() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] = sum[r] + shuffle_xor(sum[r], 2);
      sum[r] = sum[r] + shuffle_xor(sum[r], 1);
    }
  }
};

/// scores += q k over one part of the head.
template <typename T, int kDim>
__device__ __forceinline__ void multiply_keys(FragmentC (&scores)[2], const Query<T, kDim>& query,
                                              const Fragments<kDim>& keys, int part) {
  if constexpr (Geometry<kDim>::kSharedQuery > 0) sync_warp();  // else the compiler loads all of q ahead, and spills
#pragma unroll
  for (int i = 0; i < Geometry<kDim>::kChunk; ++i) {
    const FragmentA a = query.at(part * Geometry<kDim>::kChunk + i);
    multiply_accumulate<T>(scores[0], a, FragmentB{{keys.step[i].word[0], keys.step[i].word[1]}});
    multiply_accumulate<T>(scores[1], a, FragmentB{{keys.step[i].word[2], keys.step[i].word[3]}});
  }
}

template <typename T, int kDim>
__device__ __forceinline__ void multiply_values(State<kDim>& state, const FragmentA& weights,
                                                const Fragments<kDim>& values, int part) {
#pragma unroll
  for (int i = 0; i < Geometry<kDim>::kChunk; ++i) {
    FragmentC* acc = state.acc + 2 * (part * Geometry<kDim>::kChunk + i);
    multiply_accumulate<T>(acc[0], weights, FragmentB{{values.step[i].word[0], values.step[i].word[1]}});
    multiply_accumulate<T>(acc[1], weights, FragmentB{{values.step[i].word[2], values.step[i].word[3]}});
  }
}

/// Scores that a row does not see become -infinity.
__device__ __forceinline__ void mask_scores(FragmentC (&scores)[2], int first_key, const Row (&rows)[2]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int key = first_key + 8 * (i / 4) + 2 * static_cast<int>(lane() % 4) + i % 2;
    const KeyRange& keys = rows[i % 4 / 2].keys;
    float& score = scores[i / 4].value[i % 4];
    score = key < keys.begin || key >= keys.end ? -infinity() : score;
  }
}

/// The softmax step of one block: moves max and sum, rescales acc, returns p as an operand.
template <typename T, int kDim>
__device__ __forceinline__ FragmentA add_scores(State<kDim>& state, const FragmentC (&scores)[2]) {
  FragmentA weights;
  float rescale[2];
  bool moved[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float s0 = scores[0].value[2 * r], s1 = scores[0].value[2 * r + 1];
    const float s2 = scores[1].value[2 * r], s3 = scores[1].value[2 * r + 1];
    float max = larger(larger(s0, s1), larger(s2, s3));
    max = larger(max, shuffle_xor(max, 1));
    max = larger(max, shuffle_xor(max, 2));
    max = larger(max, state.max[r]);
    const float base = base_of(max);
    moved[r] = max != state.max[r];
    rescale[r] = exp2_of(state.max[r] - base);
    state.max[r] = max;
    const float p0 = exp2_of(s0 - base), p1 = exp2_of(s1 - base), p2 = exp2_of(s2 - base), p3 = exp2_of(s3 - base);
    state.sum[r] = fma(state.sum[r], rescale[r], (p0 + p2) + (p1 + p3));
    weights.reg[r] = pack_pair<T>(p0, p1);
    weights.reg[2 + r] = pack_pair<T>(p2, p3);
  }
  if (any_of_warp(moved[0] || moved[1])) {
    // A row that did not move would be multiplied by 1, which flushes denormals: that must not depend on other rows.
#pragma unroll
    for (int i = 0; i < Geometry<kDim>::kOutTiles; ++i)
#pragma unroll
      for (int c = 0; c < 4; ++c)
        if (moved[c / 2]) state.acc[i].value[c] = state.acc[i].value[c] * rescale[c / 2];
  }
  return weights;
}

/// The total over splits of a tile, in shared memory, each lane its own: [kOutTiles, 32] of acc, then max and sum of
/// the lane's two rows.
template <int kDim>
struct Total {
  FragmentC* acc;

  __device__ __forceinline__ FragmentC& stats() const { return acc[Geometry<kDim>::kOutTiles * 32 + lane()]; }
  __device__ __forceinline__ void clear() const { stats() = {{-infinity(), -infinity(), 0.0f, 0.0f}}; }
  __device__ __forceinline__ void add(const State<kDim>& split) const {
    FragmentC total = stats();
    const Fold fold[2] = {Fold(total.value[0], split.max[0]), Fold(total.value[1], split.max[1])};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      total.value[r] = fold[r].max;
      total.value[2 + r] = fold[r](total.value[2 + r], split.sum[r]);
    }
    stats() = total;
    if (any_of_warp(!fold[0].mixes() || !fold[1].mixes()))
      add_acc(split, [&](int r, float acc, float value) { return fold[r](acc, value); });
    else
      add_acc(split, [&](int r, float acc, float value) { return fold[r].mixed(acc, value); });
  }
  template <typename Mix>
  __device__ __forceinline__ void add_acc(const State<kDim>& split, const Mix& mix) const {
#pragma unroll
    for (int i = 0; i < Geometry<kDim>::kOutTiles; ++i) {
      FragmentC total = acc[i * 32 + lane()];
#pragma unroll
      for (int c = 0; c < 4; ++c) total.value[c] = mix(c / 2, total.value[c], split.acc[i].value[c]);
      acc[i * 32 + lane()] = total;
    }
  }
  template <typename T>
  __device__ __forceinline__ void write(const Params<T>& p, const Tile& tile, const Row (&rows)[2]) const {
#pragma unroll 1
    for (int i = 0; i < Geometry<kDim>::kOutTiles; ++i) {
      const FragmentC total = acc[i * 32 + lane()];
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const Row& row = rows[c / 2];
        const float value = quotient(total.value[c], stats().value[2 + c / 2]);
        if (row.token >= 0)
          p.batch.store_out(tile.query_start + row.token, row.head * kDim + 8 * i + 2 * (lane() % 4) + c % 2, value);
      }
    }
  }
};

/// Leaves a cut tile's split in scratch.
template <typename T, int kDim>
__device__ __forceinline__ void write_partial(const Params<T>& p, const Tile& tile, const Row (&rows)[2],
                                              const State<kDim>& split) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (rows[r].token < 0) continue;
    const int64_t index = p.partial(tile.sequence, rows[r].token, rows[r].head) + tile.first_split;
    if (lane() % 4 == 0) {
      p.stats[2 * index] = split.max[r];
      p.stats[2 * index + 1] = split.sum[r];
    }
#pragma unroll
    for (int i = 0; i < Geometry<kDim>::kOutTiles; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) p.acc[index * kDim + 8 * i + 2 * (lane() % 4) + h] = split.acc[i].value[2 * r + h];
  }
}

/// One tile: its only split where it is cut, else all of them.
template <typename T, int kDim>
__device__ __forceinline__ void attend_tile(const Params<T>& p, const Tile& tile, bool is_cut) {
  using G = Geometry<kDim>;
  const int pair = tile.first_pair + static_cast<int>(lane() / 4);
  const Row rows[2] = {row_of(p, tile, pair), row_of(p, tile, pair + 8)};
  // Positions ascend with pairs: the first row sees the first key and the fewest, the last row the last.
  const KeyRange first = row_of(p, tile, tile.first_pair).keys, last = row_of(p, tile, tile.end_pair - 1).keys;
  const int first_split_key = tile.first_split * kSplitKeys, end_split_key = tile.end_split * kSplitKeys;
  const int begin_key = first.begin > first_split_key ? first.begin : first_split_key;
  const int end_key = last.end < end_split_key ? last.end : end_split_key;
  if (is_cut && begin_key >= end_key) return;  // the fold skips what no row of the tile sees

  auto* shared = shared_memory<FragmentC>() + warp() * ((G::kOutTiles + 1) * 32 + G::kSharedQuery);
  const Total<kDim> total{shared};
  total.clear();
  Query<T, kDim> query;
  query.in_shared = reinterpret_cast<FragmentA*>(shared + (G::kOutTiles + 1) * 32);

  const int32_t* table = p.batch.blocks_of(tile.sequence);
  const int end_block = (end_key + kBlockTokens - 1) / kBlockTokens;
  // What a block is made of in the order of use: parts of its keys, then of its values. Two parts are on hand or on
  // their way: when part i has been used, part i + 2 is sent for, which may be one of the next block.
  Fragments<kDim> parts[2];
  const auto send_for = [&](int part, int here, int next) {
    const int id = part < 2 * G::kParts ? here : next, of_block = part % (2 * G::kParts);
    const T* cache = of_block < G::kParts ? p.batch.k : p.batch.v;
    const int64_t place = int64_t{id} * p.batch.num_kv_heads + tile.group.kv_head;
    parts[part % 2].load(reinterpret_cast<const Bytes16*>(cache) + place * (G::kSteps * 32), of_block % G::kParts);
  };
  State<kDim> state;
  state.clear();
  int block = begin_key / kBlockTokens;
  int here = 0, next = 0;  // the ids of this block and the one after
  if (block < end_block) {
    here = table[block];
    next = table[block + 1 < end_block ? block + 1 : block];
    send_for(0, here, next);
    send_for(1, here, next);
  }
  query.load(p, tile, rows);
  for (; block < end_block; ++block) {
    const int first_key = block * kBlockTokens, num_keys = tile.context - first_key;
    const int after_next = table[block + 2 < end_block ? block + 2 : end_block - 1];
    FragmentC scores[2] = {};
#pragma unroll
    for (int i = 0; i < G::kParts; ++i) {
      multiply_keys(scores, query, parts[i % 2], i);
      send_for(i + 2, here, next);
    }
    p.rule.apply(scores);
    if (last.begin > first_key || first.end < first_key + kBlockTokens) mask_scores(scores, first_key, rows);
    const FragmentA weights = add_scores<T>(state, scores);
#pragma unroll
    for (int i = 0; i < G::kParts; ++i) {
      Fragments<kDim>& values = parts[(G::kParts + i) % 2];
      if (num_keys < kBlockTokens) values.clear_from(num_keys);
      multiply_values<T>(state, weights, values, i);
      send_for(G::kParts + i + 2, here, next);
    }
    here = next;
    next = after_next;
    if (is_cut || (block % kSplitBlocks != kSplitBlocks - 1 && block != end_block - 1)) continue;
    state.meet_sums();
    total.add(state);
    state.clear();
  }
  if (is_cut) {
    state.meet_sums();
    write_partial(p, tile, rows, state);
  } else {
    total.write(p, tile, rows);
  }
}

template <typename T, int kDim>
__global__ void __launch_bounds__(32 * Geometry<kDim>::kWarps) attention_mma_kernel(Params<T> p) {
  constexpr int kWarps = static_cast<int>(Geometry<kDim>::kWarps);
  const int block = static_cast<int>(block_index().x) - p.loop_blocks;
  Tile tile;
  if (block < 0) {
    if (find_long_tile<T, Geometry<kDim>::kWarps>(p, tile)) attend_tile<T, kDim>(p, tile, false);
    return;
  }
  const int stride = (static_cast<int>(grid_dims().x) - p.loop_blocks) * kWarps, items = num_items(p);
  for (int item = block * kWarps + static_cast<int>(warp()); item < items; item += stride)
    if (find_cut_tile(p, item, tile)) attend_tile<T, kDim>(p, tile, true);
}

}  // namespace chorale::worker::inline SIMT::attention_mma
