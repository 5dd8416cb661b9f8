// Skeleton of the linear kernels for many rows, which are bound by arithmetic. A Tile says what a block computes and
// how; here are the pipeline and the fold.
//
// A block has Tile::kOutputs outputs of Tile::kRows rows. It walks over all leaves in turns of kGroup padded k; both
// operands of kStages - 1 turns are on their way to shared memory (cp.async) while one is computed. Bytes: weights once
// a row tile, x once an output tile, mostly from L2; blocks of the same weights are neighbours in the grid.
// Order: a leaf is one chain in one thread (or one warp's matrix instructions), ascending in k; sums that wait for
// their right neighbour in the tree stay in registers.
#pragma once

#include <utility>

#include "worker/kernels/cuda/linear_stages.cuh"

namespace chorale::worker::inline SIMT {

/// Tile:
///   X                              element of x
///   Weight                         where the weights are: small, copyable
///   kThreads kBlocks               of a block; blocks that a multiprocessor must hold
///   kRows kOutputs                 of a block
///   kGroup kStages kWeightBytes    padded k a turn; turns in shared memory; bytes of the block's weights there
///   kValues value(i)               a thread's sums and each of them; row(i) output(i) where it lies in the block
///   kPending                       sets of sums that may wait: 0 for weights of one leaf
///   copy(weight, n, first_output, padded_k, length, stage)    starts to fill a stage
///   multiply(x_stage, stage, length)
template <typename Tile>
struct ManyRowsParams {
  typename Tile::Weight weight;
  Rows<const typename Tile::X> x;
  Rows<float> out;
  const float* bias = nullptr;
  int64_t rows = 0, n = 0;
  int turns = 0;
  LinearPlan plan;
};

/// The sums that wait, each thread its own. Depths are template parameters, so that all stay in registers: inside
/// `if (depth == size)` a compiler would index by `size`.
template <typename Tile>
struct PendingSums {
  float value[Tile::kPending][Tile::kValues] = {};
  int size = 0;

  /// sum = last + sum, and the last leaves.
  __device__ __forceinline__ void merge_into(Tile& sum) {
    --size;
    merge_at(sum, std::make_integer_sequence<int, Tile::kPending>());
  }
  __device__ __forceinline__ void push(Tile& sum) {
    push_at(sum, std::make_integer_sequence<int, Tile::kPending>());
    ++size;
  }

 private:
  template <int... kDepth>
  __device__ __forceinline__ void merge_at(Tile& sum, std::integer_sequence<int, kDepth...>) {
    ((kDepth == size ? add<kDepth>(sum) : void()), ...);
  }
  template <int... kDepth>
  __device__ __forceinline__ void push_at(Tile& sum, std::integer_sequence<int, kDepth...>) {
    ((kDepth == size ? keep<kDepth>(sum) : void()), ...);
  }
  template <int kDepth>
  __device__ __forceinline__ void add(Tile& sum) {
#pragma unroll
    for (int i = 0; i < Tile::kValues; ++i) sum.value(i) = value[kDepth][i] + sum.value(i);
  }
  template <int kDepth>
  __device__ __forceinline__ void keep(Tile& sum) {
#pragma unroll
    for (int i = 0; i < Tile::kValues; ++i) value[kDepth][i] = sum.value(i);
  }
};
/// With one leaf nothing waits.
struct NothingPending {};

template <typename Tile>
__device__ __forceinline__ void store_node(const ManyRowsParams<Tile>& p, int node, Tile& sum, int64_t first_row,
                                           int64_t first_output) {
#pragma unroll
  for (int i = 0; i < Tile::kValues; ++i) {
    const int64_t row = first_row + Tile::row(i), output = first_output + Tile::output(i);
    if (row < p.rows && output < p.n)
      p.out.row(node * p.rows + row)[output] = p.bias == nullptr ? sum.value(i) : sum.value(i) + p.bias[output];
  }
}

template <typename Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) many_rows_kernel(ManyRowsParams<Tile> p) {
  using XStage = RowStage<typename Tile::X, Tile::kGroup>;
  constexpr int kXBytes = Tile::kRows * XStage::kRowBytes, kStageBytes = kXBytes + Tile::kWeightBytes;
  const int64_t first_row = int64_t{block_index().x} * Tile::kRows;
  const int64_t first_output = int64_t{block_index().y} * Tile::kOutputs;
  const int num_rows = p.rows - first_row < Tile::kRows ? static_cast<int>(p.rows - first_row) : Tile::kRows;
  auto* stages = shared_memory<unsigned char>();

  LeafCursor<Tile::kGroup> next(p.plan, 0, 1), now = next;
  int next_stage = 0, stage = 0;
  const auto start_turn = [&] {
    if (next.is_valid(p.plan)) {
      const int leaf = next.leaf, length = next.length(p.plan);
      unsigned char* to = stages + next_stage * kStageBytes;
      Tile::copy(p.weight, p.n, first_output, p.plan.padded_begin[leaf] + next.k, length, to + kXBytes);
      XStage::fill(to, p.x, first_row, num_rows, p.plan.begin[leaf] + next.k, p.plan.begin[leaf],
                   p.plan.begin[leaf + 1], length, thread_index().x, Tile::kThreads);
      next.advance(p.plan);
    }
    copy_async_commit();
    next_stage = next_stage + 1 == Tile::kStages ? 0 : next_stage + 1;
  };

  for (int i = 0; i < Tile::kStages - 1; ++i) start_turn();
  Tile sum;
  sum.clear();
  [[maybe_unused]] std::conditional_t<(Tile::kPending > 0), PendingSums<Tile>, NothingPending> pending;
  int folded = 0, node = 0;  // leaves whose sums are in the tree; nodes stored
  const auto fold_before = [&](int leaf) {
    for (; folded < leaf; ++folded) {
      if constexpr (Tile::kPending > 0)
        for (int i = 0; i < p.plan.merges[folded]; ++i) pending.merge_into(sum);
      if (p.plan.ends_node[folded] != 0) store_node(p, node++, sum, first_row, first_output);
      if constexpr (Tile::kPending > 0)
        if (p.plan.ends_node[folded] == 0) pending.push(sum);
      sum.clear();
    }
  };
  for (int turn = 0; turn < p.turns; ++turn) {
    // When a leaf begins, the one before is folded, and those between, which have no inputs and the sum zero.
    if constexpr (Tile::kPending > 0)
      if (now.k == 0) fold_before(now.leaf);
    copy_async_wait<Tile::kStages - 2>();
    sync_block();  // this turn's stage is full for all, and the one before is free
    start_turn();
    sum.multiply(stages + stage * kStageBytes, stages + stage * kStageBytes + kXBytes, now.length(p.plan));
    now.advance(p.plan);
    stage = stage + 1 == Tile::kStages ? 0 : stage + 1;
  }
  fold_before(p.plan.num_leaves);
  copy_async_wait<0>();
}

template <typename Tile>
void launch_many_rows(OpContext& ctx, ManyRowsParams<Tile> p) {
  constexpr size_t kStageBytes = Tile::kRows * RowStage<typename Tile::X, Tile::kGroup>::kRowBytes + Tile::kWeightBytes;
  CHECK(p.plan.max_pending <= Tile::kPending && (p.plan.num_leaves == 1 || Tile::kPending > 0));
  p.turns = p.plan.num_turns(1, Tile::kGroup);
  launch(ctx, many_rows_kernel<Tile>,
         {.grid = {ceil_div(p.rows, Tile::kRows), ceil_div(p.n, Tile::kOutputs)},
          .block = {Tile::kThreads},
          .shared_bytes = Tile::kStages * kStageBytes},
         p);
}

}  // namespace chorale::worker::inline SIMT
