// The part of attention's vector kernels that does not depend on the instruction set: how a batch is cut into tiles of
// query rows that share a KV head, and how tiles and splits are spread over threads. The arithmetic is in
// attention_tile-inl.h.
#pragma once

#include <cstdint>

#include "worker/ops/attention.h"

namespace chorale::worker::tiles {

constexpr int kMaxItems = 12;
constexpr int kMaxHeadDim = 256;
constexpr int kStateHeader = 16;  // floats before acc in a stored state: max, sum

/// Up to kMaxItems (query row, head) pairs of one sequence that read the same KV head.
struct Tile {
  const AttentionArgs* args;
  const int32_t* block_table;
  int kv_head;
  int num_items;
  const float* q[kMaxItems];  // [head_dim]
  std::byte* out[kMaxItems];  // [head_dim] in args->out's type
  int first_key[kMaxItems];   // visible keys of each item
  int end_key[kMaxItems];
  int min_key, max_key;  // visible to any of them
  int prefetch_blocks;   // context blocks below this one are fetched ahead; 0 where another tile reads them too
  int first_split() const { return min_key / kSplitKeys; }
  int end_split() const { return max_key > min_key ? (max_key - 1) / kSplitKeys + 1 : first_split(); }
};

/// What one instruction set offers.
struct TileFunctions {
  int max_items;
  /// All splits of the tile, folded, divided, written to out.
  void (*attend)(const Tile& tile);
  /// One split: [num_items] states of `stride` floats (max, sum, then acc from kStateHeader on; sum 0: no visible key).
  void (*attend_split)(const Tile& tile, int split, float* states, int64_t stride);
  /// Folds states [num_splits][num_items] left to right and writes out.
  void (*finish)(const Tile& tile, const float* states, int num_splits, int64_t stride);
};

void run_attention(OpContext& ctx, const AttentionArgs& args, const TileFunctions& functions);

}  // namespace chorale::worker::tiles
