// y = x W^T + b over weights of 8 bits with one scale for each output and block of 32 inputs (GGUF's Q8_0), x in
// float32: for small batches, where the weights' bytes decide the speed. It does not quantise x (N7's integer dots are
// another op's) and does not communicate. No loader makes such weights yet.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "comm/base/tensor.h"
#include "comm/reduction_tree.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// W [n, k], cut along k in leaves (N2) and, inside a leaf, at the multiples of 32 of the whole matrix's k: a block
/// that a leaf or a rank cuts keeps its scale on both sides (N7). A piece is stored as a group of 32 slots, zero
/// outside of the leaf, one load of 16 outputs' bytes a lane and half:
///   values: [padded n / 32][groups][2 (half)][32 (lane)][16 (j)]: output 32 i + lane, slot 16 half + j
///   scales: [padded n / 32][groups][32 (lane)]
struct Int8Weight {
  static constexpr int64_t kBlock = 32;  // inputs that share a scale
  static constexpr int64_t kTile = 32;   // outputs whose bytes lie together

  int64_t n = 0;                    // outputs held by this rank
  int64_t k = 0;                    // inputs held by this rank
  int first_leaf = 0;               // global number of the first local leaf; 0 where k is not cut
  int64_t block_offset = 0;         // of local input 0 in its block: its global number modulo 32
  std::vector<int64_t> leaf_begin;  // [num_leaves + 1] local k offsets, leaf_begin.back() == k
  Tensor values;                    // i8
  Tensor scales;                    // f32

  int num_leaves() const { return static_cast<int>(leaf_begin.size()) - 1; }
  int64_t num_tiles() const { return (n + kTile - 1) / kTile; }
  /// 32 times the groups before leaf `leaf`; padded_leaf_begin(num_leaves()) is the padded k.
  int64_t padded_leaf_begin(int leaf) const;
  /// Local input of the leaf's slot 0; what lies before the leaf's begin is padding.
  int64_t first_slot(int leaf) const;
};

/// Zeroed weight. `leaf_begin` empty: one leaf. Throws Error{kInvalidArgument} for leaves that do not ascend from 0 to
/// k and offsets outside of a block, Error{kResourceExhausted} without memory.
Int8Weight make_int8_weight(int64_t n, int64_t k, std::vector<int64_t> leaf_begin = {}, int first_leaf = 0,
                            int64_t block_offset = 0);
/// Fills outputs [first_row, first_row + num_rows). values: [num_rows, k]; scales: [num_rows, blocks] with
/// blocks = ceil((block_offset + k) / 32). Threads may fill disjoint outputs at the same time.
void pack_int8_rows(Int8Weight& weight, int64_t first_row, int64_t num_rows, const int8_t* values, const float* scales);
/// A copy of `weight` on `device`.
Int8Weight to_device(const Int8Weight& weight, Device& device, Stream& stream);

/// A group's dot is one chain over its 32 slots, d = fma(float(value), x, d) from +0, padding as zero products. A
/// leaf's sum is one chain over its groups, s = fma(scale, d, s) from +0, both ascending in k. So groups may be
/// computed side by side, and the scale is rounded once a group. Leaf sums meet in the tree (N3), then the bias is
/// added.
struct LinearInt8Args {
  MatrixView x;                            // f32 [rows, k]
  const Int8Weight* weight = nullptr;      // [n, k]
  const float* bias = nullptr;             // [n] or null; only where out holds one node
  MatrixView out;                          // f32 [rows, n], or [num_nodes * rows, n], node-major
  std::span<const comm::LeafRange> nodes;  // as LinearArgs::nodes
};
void linear_int8(OpContext& ctx, const LinearInt8Args& args);

}  // namespace chorale::worker
