// How the batch is cut into the tiles of attention on tensor cores, and how a warp finds its own. A tile is 16 (token,
// head) pairs of one sequence that read one KV head. The host knows rows, sequences, heads and bounds only; so a launch
// has a few more places than tiles, each found by searching the batch's arrays. Sequences of few rows are cut: their
// tiles' splits are a list of work that the warps of a grid of fixed size stride over.
#pragma once

#include "worker/kernels/cuda/attention_batch.cuh"
#include "worker/kernels/cuda/attention_softmax.cuh"

namespace chorale::worker::inline SIMT::attention_mma {

constexpr int kTileRows = 16;

template <typename T>
struct Params {
  AttentionBatch<T> batch;
  ScoreRule rule;
  int cut_tokens;   // sequences of at most so many tokens are cut into splits; 0: none is
  int cut_splits;   // scratch holds the partials of the batch's first so many splits; sequences past it are not cut
  int loop_blocks;  // the grid's first blocks work on the sequences that are not cut, the others on cut ones
  float* stats;     // [cut_splits * cut_tokens * num_heads, 2]: max, sum; see partial()
  float* acc;       // [cut_splits * cut_tokens * num_heads, head_dim]

  __device__ bool is_cut(int sequence, int query_len) const {
    return query_len <= cut_tokens && batch.split_start[sequence + 1] <= cut_splits;
  }
  /// Of a cut sequence's token and head: index of its first split's partial; the others follow.
  __device__ int64_t partial(int sequence, int token, int head) const {
    const int64_t start = batch.split_start[sequence], num_splits = batch.split_start[sequence + 1] - start;
    return start * cut_tokens * batch.num_heads + (int64_t{token} * batch.num_heads + head) * num_splits;
  }
};

/// The (token, head) pairs [first_pair, end_pair) of a sequence's query_len * group.size.
struct Tile {
  int sequence, query_start, query_len, context;
  HeadGroup group;
  int first_pair, end_pair;
  int first_split, end_split;  // the splits that the warp takes, not all of which have visible keys
};

/// Fills what follows from tile.sequence and tile.group; false for a tile past the sequence's end.
template <typename T>
__device__ __forceinline__ bool place_tile(const Params<T>& p, int index, Tile& tile) {
  tile.query_start = p.batch.query_start[tile.sequence];
  tile.query_len = p.batch.query_start[tile.sequence + 1] - tile.query_start;
  tile.context = p.batch.context_len[tile.sequence];
  const int pairs = tile.query_len * tile.group.size;
  tile.first_pair = index * kTileRows;
  tile.end_pair = tile.first_pair + kTileRows < pairs ? tile.first_pair + kTileRows : pairs;
  return index >= 0 && tile.first_pair < pairs;
}

/// Blocks of the grid for tiles of sequences that are not cut. The host knows rows and sequences, not their lengths, so
/// sequence s of a group of n heads begins at tile floor(query_start[s] n / tiles of a block) + s: there is always
/// room.
template <typename T, unsigned kWarps>
__device__ __forceinline__ bool find_long_tile(const Params<T>& p, Tile& tile) {
  constexpr int kBlockRows = kTileRows * static_cast<int>(kWarps);
  const AttentionBatch<T>& batch = p.batch;
  const int slot = p.loop_blocks - 1 - static_cast<int>(block_index().x);  // later tiles see more keys: they go first
  const auto group_start = [&](int head, int kv_head) {
    return batch.num_rows * head / kBlockRows + kv_head * batch.num_sequences;
  };
  tile.group = find_group(batch, slot, group_start);
  const int local = slot - group_start(tile.group.first, tile.group.kv_head);
  if (local < 0) return false;  // the first KV heads are read by nobody
  const auto sequence_start = [&](int s) { return batch.query_start[s] * tile.group.size / kBlockRows + s; };
  tile.sequence = find_last(batch.num_sequences, local, sequence_start);
  const int index = (local - sequence_start(tile.sequence)) * static_cast<int>(kWarps) + static_cast<int>(warp());
  tile.first_split = 0;
  if (!place_tile(p, index, tile)) return false;
  tile.end_split = (tile.context + kSplitKeys - 1) / kSplitKeys;
  return !p.is_cut(tile.sequence, tile.query_len);
}

/// Tiles that a sequence of `tokens` may need, over all of a rank's KV heads.
__host__ __device__ __forceinline__ int tiles_of(int tokens, int num_heads, int num_kv_heads) {
  return tokens * num_heads / kTileRows + num_kv_heads;
}

/// The items of the list of work: every split of the batch times the tiles that a cut sequence may need. Item i is tile
/// i % tiles of split i / tiles.
template <typename T>
__device__ __forceinline__ int num_items(const Params<T>& p) {
  const AttentionBatch<T>& batch = p.batch;
  const int splits = batch.split_start[batch.num_sequences];
  return (splits < p.cut_splits ? splits : p.cut_splits) * tiles_of(p.cut_tokens, batch.num_heads, batch.num_kv_heads);
}

/// False for an item that has nothing to do.
template <typename T>
__device__ __forceinline__ bool find_cut_tile(const Params<T>& p, int item, Tile& tile) {
  const AttentionBatch<T>& batch = p.batch;
  const int tiles = tiles_of(p.cut_tokens, batch.num_heads, batch.num_kv_heads);
  const int split = item / tiles, local = item % tiles;
  // Sequences without splits start where the next one does: the last is the one that has it.
  tile.sequence = find_last(batch.num_sequences, split, [&](int s) { return batch.split_start[s]; });
  tile.first_split = split - batch.split_start[tile.sequence];
  tile.end_split = tile.first_split + 1;
  const auto group_start = [&](int head, int kv_head) { return p.cut_tokens * head / kTileRows + kv_head; };
  tile.group = find_group(batch, local, group_start);
  const int index = local - group_start(tile.group.first, tile.group.kv_head);
  return place_tile(p, index, tile) && p.is_cut(tile.sequence, tile.query_len);
}

/// One of a lane's two rows.
struct Row {
  int token, head;  // token -1: padding
  KeyRange keys;
};
template <typename T>
__device__ __forceinline__ Row row_of(const Params<T>& p, const Tile& tile, int pair) {
  if (pair >= tile.end_pair) return {-1, tile.group.first, {0, 0}};
  const int token = pair / tile.group.size;
  return {token, tile.group.first + pair % tile.group.size, visible_keys(p.batch, tile.context, tile.query_len, token)};
}

}  // namespace chorale::worker::inline SIMT::attention_mma
