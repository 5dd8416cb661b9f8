// The part of linear's vector kernels that does not depend on the instruction set: how rows, columns and k are cut,
// where leaf sums meet, and the loop that calls an instruction set's tiles. Included by linear_<isa>.cc; the arithmetic
// is in linear_tile-inl.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "worker/ops/linear.h"

namespace chorale::worker::panels {

constexpr int kMaxTileRows = 14;
constexpr int kMaxWidthLog2 = 3;  // tiles are 1, 2, 4 or 8 vectors of 16 outputs wide

/// One call of a tile: `rows` x `16 * vectors` outputs over some steps of k. A step is one k (f32) or a pair of k
/// (bf16).
struct TileCall {
  const std::byte* w;  // first step's weights of the first output
  int64_t w_step;      // bytes from step to step
  int64_t steps;
  const uint32_t* x;          // activations [steps][words per step][rows]
  float* sums;                // [rows][kPanelWidth] running sums of the leaf
  bool resume;                // go on from `sums` instead of +0
  int num_merges;             // after the last step of a leaf: left siblings to add, nearest first (0: none)
  int64_t merge_stride;       // floats between two levels of the tree's stack; level i lies at sums - i * merge_stride
  const std::byte* prefetch;  // weights that a later call needs
  int64_t prefetch_step;      // bytes a step
  int prefetch_lines;         // cache lines a step
};
using TileFn = void (*)(const TileCall& call);

struct TileSet {
  int max_rows;
  int k_per_step;                                    // 1 (f32) or 2 (bf16)
  int words_per_step;                                // 32-bit words of packed x per row and step
  TileFn tile[kMaxTileRows + 1][kMaxWidthLog2 + 1];  // [rows][log2(vectors)]; null: not that wide
  /// Writes x[step * stride] for every step of one row and leaf: source row at the leaf's start, `k` elements of it.
  void (*pack)(const void* source, int64_t k, uint32_t* x, int64_t stride);
};

void run_linear(OpContext& ctx, const LinearArgs& args, const TileSet& tiles);

}  // namespace chorale::worker::panels
