// linear_int8, scalar reference: one output at a time, the chains of linear_int8.h written out.

#include <cmath>

#include "worker/kernels/cpu/scalar_linear.h"
#include "worker/kernels/cpu/scalar_support.h"
#include "worker/ops/kernel.h"
#include "worker/ops/linear_int8.h"

namespace chorale::worker {
namespace {

constexpr int64_t kBlock = Int8Weight::kBlock, kTile = Int8Weight::kTile, kHalf = kBlock / 2;

float leaf_sum(const LinearInt8Args& args, int leaf, int64_t row, int64_t col) {
  const Int8Weight& w = *args.weight;
  const int64_t begin = w.leaf_begin[static_cast<size_t>(leaf)], end = w.leaf_begin[static_cast<size_t>(leaf) + 1];
  const int64_t groups = w.values.shape()[1], first_group = w.padded_leaf_begin(leaf) / kBlock;
  const int64_t end_group = w.padded_leaf_begin(leaf + 1) / kBlock;
  const auto* values = static_cast<const int8_t*>(w.values.view().data);
  float sum = 0.0f;
  for (int64_t group = first_group; group < end_group; ++group) {
    const int64_t stored = col / kTile * groups + group;
    float dot = 0.0f;
    for (int64_t slot = 0; slot < kBlock; ++slot) {
      const int64_t k = w.first_slot(leaf) + (group - first_group) * kBlock + slot;
      const int8_t value = values[((stored * 2 + slot / kHalf) * kTile + col % kTile) * kHalf + slot % kHalf];
      dot = std::fma(static_cast<float>(value), k >= begin && k < end ? load(args.x, row, k) : 0.0f, dot);
    }
    sum = std::fma(w.scales.as<float>()[stored * kTile + col % kTile], dot, sum);
  }
  return sum;
}

void launch(OpContext& ctx, const LinearInt8Args& args) {
  run_scalar_linear(ctx, args, [&](int leaf, int64_t row, int64_t col) { return leaf_sum(args, leaf, row, col); });
}

const KernelTable<LinearInt8Args>::Add kAdd({"linear_int8_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                             supports_all, launch});

}  // namespace
}  // namespace chorale::worker
