#include "worker/ops/linear_int8.h"

#include <utility>

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"
#include "worker/ops/packed_weight.h"

namespace chorale::worker {

int64_t Int8Weight::first_slot(int leaf) const {
  return (block_offset + leaf_begin[static_cast<size_t>(leaf)]) / kBlock * kBlock - block_offset;
}

int64_t Int8Weight::padded_leaf_begin(int leaf) const {
  int64_t begin = 0;
  for (int i = 0; i < leaf; ++i) {
    const int64_t end = leaf_begin[static_cast<size_t>(i) + 1];
    if (end > leaf_begin[static_cast<size_t>(i)]) begin += (end - first_slot(i) + kBlock - 1) / kBlock * kBlock;
  }
  return begin;
}

Int8Weight make_int8_weight(int64_t n, int64_t k, std::vector<int64_t> leaf_begin, int first_leaf,
                            int64_t block_offset) {
  leaf_begin = checked_leaves(n, k, std::move(leaf_begin));
  if (block_offset < 0 || block_offset >= Int8Weight::kBlock)
    fail(ErrorCode::kInvalidArgument, "an offset in a block of {} cannot be {}", Int8Weight::kBlock, block_offset);
  Int8Weight weight;
  weight.n = n;
  weight.k = k;
  weight.first_leaf = first_leaf;
  weight.block_offset = block_offset;
  weight.leaf_begin = std::move(leaf_begin);
  const int64_t groups = weight.padded_leaf_begin(weight.num_leaves()) / Int8Weight::kBlock;
  weight.values = Tensor(DType::kI8, {weight.num_tiles(), groups, 2, Int8Weight::kTile, Int8Weight::kBlock / 2});
  weight.scales = Tensor(DType::kF32, {weight.num_tiles(), groups, Int8Weight::kTile});
  return weight;
}

void pack_int8_rows(Int8Weight& weight, int64_t first_row, int64_t num_rows, const int8_t* values,
                    const float* scales) {
  CHECK(first_row >= 0 && num_rows >= 0 && first_row + num_rows <= weight.n);
  constexpr int64_t kBlock = Int8Weight::kBlock, kTile = Int8Weight::kTile, kHalf = kBlock / 2;
  const int64_t groups = weight.values.shape()[1], blocks = (weight.block_offset + weight.k + kBlock - 1) / kBlock;
  auto* to = static_cast<int8_t*>(weight.values.view().data);
  for (int64_t row = first_row; row < first_row + num_rows; ++row, values += weight.k, scales += blocks)
    for (int leaf = 0; leaf < weight.num_leaves(); ++leaf) {
      const int64_t begin = weight.leaf_begin[static_cast<size_t>(leaf)],
                    end = weight.leaf_begin[static_cast<size_t>(leaf) + 1], first = weight.first_slot(leaf);
      for (int64_t k = begin; k < end; ++k) {
        const int64_t slot = weight.padded_leaf_begin(leaf) + k - first;
        const int64_t group = row / kTile * groups + slot / kBlock, lane = row % kTile;
        to[((group * 2 + slot % kBlock / kHalf) * kTile + lane) * kHalf + slot % kHalf] = values[k];
        weight.scales.as<float>()[group * kTile + lane] = scales[(weight.block_offset + k) / kBlock];
      }
    }
}

Int8Weight to_device(const Int8Weight& weight, Device& device, Stream& stream) {
  Int8Weight copy;
  copy.n = weight.n;
  copy.k = weight.k;
  copy.first_leaf = weight.first_leaf;
  copy.block_offset = weight.block_offset;
  copy.leaf_begin = weight.leaf_begin;
  copy.values = copy_to_device({&device, &stream}, weight.values);
  copy.scales = copy_to_device({&device, &stream}, weight.scales);
  return copy;
}

void linear_int8(OpContext& ctx, const LinearInt8Args& args) {
  check_linear(ctx, args);
  check_f32(args.x);
  if (args.x.rows == 0 || args.weight->n == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
