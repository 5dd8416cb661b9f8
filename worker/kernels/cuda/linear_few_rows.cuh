// Skeleton of the linear kernels for few rows, which are bound by the bandwidth of the weights' memory. A Tile says
// what a warp does: its outputs, their weights in shared memory, and the arithmetic; here are the pipeline and the
// fold.
//
// A block has `lanes` x `tiles` warps that compute and as many that copy for them. The warps of a lane share x and work
// on leaves lane, lane + lanes, ..., each on its own outputs; lanes meet only when all leaves are done. A turn is
// kGroup padded k of a leaf; kStages - 1 turns are on their way to shared memory (cp.async) while one is computed.
// Bytes: the weights once a row tile, x once a block. Order: a leaf is one chain in one warp, ascending in k; leaf sums
// wait in shared memory and are folded in the tree by one thread an element. Neither `lanes`, `tiles` nor the number of
// rows changes a bit.
//
// What limits it: by Little's law an H200 (4.8 TB/s, about 700 ns) wants 25 KB on their way to each of its 132 SMs. One
// leaf has one chain an output (N4), so all parallelism comes from n: 4096 outputs of bf16 are 256 chains, two an SM,
// each with 16 KB on the way. A step of a chain (16 k, 512 bytes) takes the 33 cycles that an mma.m16n8k16 waits for
// its own sum, a turn of 8 steps about 100 more for the barrier and the first loads: two chains can take 20 to 22 bytes
// a cycle where memory gives 17 to 21. That is why others copy: a warp that did both would be too slow. Below about
// 4000 outputs a weight of one leaf is bound by the chain; a weight cut in leaves has twice the chains. (Calculated
// from published latencies, not measured.)
#pragma once

#include <algorithm>

#include "worker/kernels/cuda/linear_stages.cuh"

namespace chorale::worker::inline SIMT {

constexpr int kMaxFewRowsWarps = 8;

/// Tile:
///   X                              element of x
///   Weight                         where the weights are: small, copyable
///   kRows kOutputs                 of a warp
///   kGroup kStages kWeightBytes    padded k a turn; turns in shared memory; bytes of a warp's weights there
///   base(plan, weight, leaf)       x offset of the leaf's padded k 0
///   copy(weight, tile, padded_k, length, stage)    starts to fill a warp's stage
///   clear() multiply(x_stage, stage, length) store(sums, columns)    the warp's leaf sums; sums [kRows, columns]
template <typename Tile>
struct FewRowsParams {
  typename Tile::Weight weight;
  Rows<const typename Tile::X> x;
  Rows<float> out;
  const float* bias = nullptr;
  int64_t rows = 0, n = 0;
  int lanes = 1, tiles = 1, turns = 0;
  LinearPlan plan;
};

template <typename Tile>
__device__ __forceinline__ void fold_few_rows(const FewRowsParams<Tile>& p, float* sums, int64_t first_row,
                                              int num_rows, int64_t first_output) {
  const int columns = p.tiles * Tile::kOutputs;
  for (int i = static_cast<int>(thread_index().x); i < num_rows * columns; i += static_cast<int>(block_dims().x)) {
    const int64_t row = first_row + i / columns, output = first_output + i % columns;
    if (output >= p.n) continue;
    fold_leaves(p.plan, sums + i, Tile::kRows * columns, [&](int node, float sum) {
      p.out.row(node * p.rows + row)[output] = p.bias == nullptr ? sum : sum + p.bias[output];
    });
  }
}

/// A warp's place in its block.
struct FewRowsWarp {
  bool copies;
  int lane_of_leaves, tile;  // the lane it works for, and its outputs among the lane's
};
__device__ __forceinline__ FewRowsWarp few_rows_warp(int lanes, int tiles) {
  const int number = static_cast<int>(warp()), computing = lanes * tiles, place = number % computing;
  return {number >= computing, place / tiles, place % tiles};
}

/// Shared memory: leaf sums [num_leaves, kRows, tiles * kOutputs], then each lane's stages of x and of its tiles'
/// weights.
template <typename Tile>
struct FewRowsMemory {
  static constexpr int kXBytes = Tile::kRows * RowStage<typename Tile::X, Tile::kGroup>::kRowBytes;
  float* sums;
  int columns, slots;  // of a row of sums; of a leaf's sums
  unsigned char* stages;
  int stage_bytes;

  __device__ FewRowsMemory(const FewRowsParams<Tile>& p, int lane_of_leaves)
      : sums(shared_memory<float>()),
        columns(p.tiles * Tile::kOutputs),
        slots(Tile::kRows * columns),
        stage_bytes(kXBytes + p.tiles * Tile::kWeightBytes) {
    stages = reinterpret_cast<unsigned char*>(sums + p.plan.num_leaves * slots) +
             lane_of_leaves * Tile::kStages * stage_bytes;
  }
  __device__ unsigned char* x(int stage) const { return stages + stage * stage_bytes; }
  __device__ unsigned char* weight(int stage, int tile) const { return x(stage) + kXBytes + tile * Tile::kWeightBytes; }
  static int64_t bytes(const FewRowsParams<Tile>& p) {
    return int64_t{p.plan.num_leaves} * Tile::kRows * p.tiles * Tile::kOutputs * 4 +
           int64_t{p.lanes} * Tile::kStages * (kXBytes + p.tiles * Tile::kWeightBytes);
  }
};

template <typename Tile>
__device__ __forceinline__ int next_stage(int stage) {
  return stage + 1 == Tile::kStages ? 0 : stage + 1;
}

template <typename Tile>
__device__ __forceinline__ void copy_turns(const FewRowsParams<Tile>& p, const FewRowsMemory<Tile>& memory,
                                           FewRowsWarp self, int64_t first_row, int num_rows, int64_t tile) {
  LeafCursor<Tile::kGroup> next(p.plan, self.lane_of_leaves, p.lanes);
  int stage = 0;
  const auto start_turn = [&] {
    if (next.is_valid(p.plan)) {
      const int leaf = next.leaf, length = next.length(p.plan);
      if (tile * Tile::kOutputs < p.n)
        Tile::copy(p.weight, tile, p.plan.padded_begin[leaf] + next.k, length, memory.weight(stage, self.tile));
      RowStage<typename Tile::X, Tile::kGroup>::fill(
          memory.x(stage), p.x, first_row, num_rows, Tile::base(p.plan, p.weight, leaf) + next.k, p.plan.begin[leaf],
          p.plan.begin[leaf + 1], length, static_cast<unsigned>(self.tile) * 32 + lane(),
          static_cast<unsigned>(p.tiles) * 32);
      next.advance(p.plan);
    }
    copy_async_commit();
    stage = next_stage<Tile>(stage);
  };
  for (int i = 0; i < Tile::kStages - 1; ++i) start_turn();
  for (int turn = 0; turn < p.turns; ++turn) {
    copy_async_wait<Tile::kStages - 2>();
    sync_roles();  // this turn's stage is full for all, and the one before is free
    start_turn();
  }
  copy_async_wait<0>();
}

template <typename Tile>
__device__ __forceinline__ void compute_turns(const FewRowsParams<Tile>& p, const FewRowsMemory<Tile>& memory,
                                              FewRowsWarp self, int64_t tile) {
  const bool has_outputs = tile * Tile::kOutputs < p.n;
  LeafCursor<Tile::kGroup> now(p.plan, self.lane_of_leaves, p.lanes);
  int stage = 0;
  Tile sum;
  sum.clear();
  for (int turn = 0; turn < p.turns; ++turn) {
    sync_roles();
    if (has_outputs && now.is_valid(p.plan)) {
      sum.multiply(memory.x(stage), memory.weight(stage, self.tile), now.length(p.plan));
      if (now.ends_leaf(p.plan)) {
        sum.store(memory.sums + now.leaf * memory.slots + self.tile * Tile::kOutputs, memory.columns);
        sum.clear();
      }
      now.advance(p.plan);
    }
    stage = next_stage<Tile>(stage);
  }
}

template <typename Tile>
__global__ void __launch_bounds__(2 * 32 * kMaxFewRowsWarps) few_rows_kernel(FewRowsParams<Tile> p) {
  const FewRowsWarp self = few_rows_warp(p.lanes, p.tiles);
  const FewRowsMemory<Tile> memory(p, self.lane_of_leaves);
  const int64_t first_row = int64_t{block_index().x} * Tile::kRows, first_tile = int64_t{block_index().y} * p.tiles;
  const int num_rows = p.rows - first_row < Tile::kRows ? static_cast<int>(p.rows - first_row) : Tile::kRows;
  for (int leaf = 0; leaf < p.plan.num_leaves; ++leaf)  // nobody works on a leaf without inputs
    if (p.plan.begin[leaf] == p.plan.begin[leaf + 1])
      for (int i = static_cast<int>(thread_index().x); i < memory.slots; i += static_cast<int>(block_dims().x))
        memory.sums[leaf * memory.slots + i] = 0.0f;
  if (self.copies)
    copy_turns(p, memory, self, first_row, num_rows, first_tile + self.tile);
  else
    compute_turns(p, memory, self, first_tile + self.tile);
  sync_block();
  fold_few_rows(p, memory.sums, first_row, num_rows, first_tile * Tile::kOutputs);
}

/// Launches with as many tiles a block and lanes of leaves as fit the shared memory that every device grants (99 KiB on
/// sm_86 and sm_89), `most_tiles` at most. Fills p.lanes, p.tiles and p.turns.
template <typename Tile>
void launch_few_rows(OpContext& ctx, FewRowsParams<Tile> p, int most_tiles) {
  constexpr int64_t kSharedBytes = int64_t{99} << 10;
  constexpr int64_t kManyBlocks = 256;  // then warps of a block may share x
  const int64_t num_tiles = ceil_div(p.n, Tile::kOutputs);
  const auto shared_bytes = [&] { return FewRowsMemory<Tile>::bytes(p); };
  p.lanes = p.plan.num_leaves > 1 ? 2 : 1;
  p.tiles = 1;
  if (shared_bytes() > kSharedBytes) p.lanes = 1;
  CHECK_LE(shared_bytes(), kSharedBytes);
  while (p.tiles < most_tiles && num_tiles >= 2 * p.tiles * kManyBlocks) {
    p.tiles *= 2;
    if (shared_bytes() <= kSharedBytes && p.lanes * p.tiles <= kMaxFewRowsWarps) continue;
    p.tiles /= 2;
    break;
  }
  p.turns = p.plan.num_turns(p.lanes, Tile::kGroup);
  launch(ctx, few_rows_kernel<Tile>,
         {.grid = {ceil_div(p.rows, Tile::kRows), ceil_div(num_tiles, p.tiles)},
          .block = {static_cast<unsigned>(2 * 32 * p.lanes * p.tiles)},
          .shared_bytes = static_cast<size_t>(shared_bytes())},
         p);
}

}  // namespace chorale::worker::inline SIMT
