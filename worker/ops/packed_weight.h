// A GEMM weight as the kernels read it: for CPUs panels of 128 outputs, so that a vector lane is an output and one
// thread reads one sequential stream (N4); for tensor cores the fragments of their instruction. Loaders make and fill
// it once; linear reads it. Quantised formats will be further orders here.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/base/dtype.h"
#include "comm/base/tensor.h"

namespace chorale::worker {

constexpr int64_t kPanelWidth = 128;  // outputs a panel
constexpr int64_t kLaneWidth = 16;    // the last panel is as wide as the remaining outputs, rounded up to this

enum class WeightOrder : uint8_t {
  kPanels,     // the CPU, and float32 on any device
  kFragments,  // 16-bit types on a GPU
  kRowMajor    // 16-bit types, for a vendor's library; k not cut
};
WeightOrder weight_order(DeviceKind device, DType dtype);

class LibraryGemm;

/// W [n, k] of y = x W^T, cut along k in leaves (N2).
/// kPanels, panel after panel (width w = 128, less in the last one):
///   f32:  [k][w]
///   bf16: [padded k / 2][w][2]   pairs (k + 1, k), the lower k in the upper half of its 32 bits: vdpbf16ps adds the
///   upper product first,
///                                so the chain ascends; every leaf is padded with zeros to an even length
/// kFragments (worker/kernels/cuda/matrix_instructions.cuh, W as A): tiles of 16 outputs x 16 k, every leaf padded with
/// zeros to a multiple of 16, one load of 8 elements a lane. With lane l, g = l / 4, t = l % 4, element j = 2 reg +
/// half:
///   [padded n / 16 (i)][padded k / 16 (s)][32 (l)][8 (j)]: output 16 i + g + 8 (reg % 2),
///                                                         k 16 s + 2 t + 8 (reg / 2) + half
/// kRowMajor: [n][k], nothing padded.
/// Columns past n are zero.
struct PackedWeight {
  WeightOrder order = WeightOrder::kPanels;
  DType dtype = DType::kF32;        // kF32 | kBF16, in fragments and rows also kF16
  int64_t n = 0;                    // outputs held by this rank
  int64_t k = 0;                    // inputs held by this rank
  int first_leaf = 0;               // global number of the first local leaf; 0 where k is not cut
  std::vector<int64_t> leaf_begin;  // [num_leaves + 1] local k offsets, leaf_begin.back() == k
  Tensor data;
  std::shared_ptr<const LibraryGemm> library;  // kRowMajor: what multiplies with it

  int num_leaves() const { return static_cast<int>(leaf_begin.size()) - 1; }
  int64_t padded_n() const { return (n + kLaneWidth - 1) / kLaneWidth * kLaneWidth; }
  int64_t num_panels() const { return (n + kPanelWidth - 1) / kPanelWidth; }
  /// Sum of the leaves' lengths, each rounded up to even for bf16 in panels, to 16 in fragments, to nothing in rows.
  int64_t padded_k() const { return padded_leaf_begin(num_leaves()); }
  /// Where local leaf `leaf` starts in the padded k.
  int64_t padded_leaf_begin(int leaf) const;
};

/// Where leaves of k start, as given or, where nothing is, one. Throws Error{kInvalidArgument} unless they ascend from
/// 0 to k.
std::vector<int64_t> checked_leaves(int64_t n, int64_t k, std::vector<int64_t> leaf_begin);

/// Zeroed weight of the right size. `leaf_begin` empty: one leaf, k not cut (column-parallel weights).
/// Throws Error{kInvalidArgument} for leaves that do not ascend from 0 to k, Error{kResourceExhausted} without memory.
PackedWeight make_packed_weight(DType dtype, int64_t n, int64_t k, std::vector<int64_t> leaf_begin = {},
                                int first_leaf = 0, WeightOrder order = WeightOrder::kPanels);
/// A copy of `weight` on `device`.
PackedWeight to_device(const PackedWeight& weight, Device& device, Stream& stream);

/// Fills outputs [first_row, first_row + num_rows) from `rows` [num_rows, k] (row-major float32, rounded to the
/// weight's type). Threads may fill disjoint outputs at the same time. Fastest with num_rows and first_row multiples
/// of 16.
void pack_rows(PackedWeight& weight, int64_t first_row, int64_t num_rows, const float* rows);

/// Element (row, col) as float32: for tests and the scalar kernel.
float packed_at(const PackedWeight& weight, int64_t row, int64_t col);

}  // namespace chorale::worker
