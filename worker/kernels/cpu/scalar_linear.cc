// linear, scalar reference: one output at a time. Chain: acc = fma(w, x, acc) from +0, ascending k inside a leaf;
// leaves meet in the tree. A leaf that its weight's order pads is followed by one zero product, as in the other kernels
// (more of them change nothing).

#include <cmath>

#include "worker/kernels/cpu/scalar_linear.h"
#include "worker/kernels/cpu/scalar_support.h"
#include "worker/ops/kernel.h"
#include "worker/ops/linear.h"

namespace chorale::worker {
namespace {

float leaf_sum(const LinearArgs& args, int leaf, int64_t row, int64_t col) {
  const PackedWeight& w = *args.weight;
  const int64_t begin = w.leaf_begin[static_cast<size_t>(leaf)], end = w.leaf_begin[static_cast<size_t>(leaf) + 1];
  float acc = 0.0f;
  for (int64_t k = begin; k < end; ++k) acc = std::fma(packed_at(w, col, k), load(args.x, row, k), acc);
  if (w.padded_leaf_begin(leaf + 1) - w.padded_leaf_begin(leaf) != end - begin) acc = std::fma(0.0f, 0.0f, acc);
  return acc;
}

void launch(OpContext& ctx, const LinearArgs& args) {
  run_scalar_linear(ctx, args, [&](int leaf, int64_t row, int64_t col) { return leaf_sum(args, leaf, row, col); });
}

const KernelTable<LinearArgs>::Add kAdd({"linear_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0, supports_all,
                                         launch});

}  // namespace
}  // namespace chorale::worker
