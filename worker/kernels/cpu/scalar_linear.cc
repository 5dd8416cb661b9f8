// linear, scalar reference: one output at a time. Chain: acc = fma(w, x, acc) from +0, ascending k inside a leaf;
// leaves meet in the tree. A leaf that its weight's order pads is followed by one zero product, as in the other kernels
// (more of them change nothing).

#include <cmath>

#include "worker/kernels/cpu/scalar_support.h"
#include "worker/ops/kernel.h"
#include "worker/ops/linear.h"
#include "worker/thread_pool.h"

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

/// `node` in local leaf numbers; the tree's shape depends on its size only.
float node_sum(const LinearArgs& args, comm::LeafRange node, int64_t row, int64_t col) {
  if (node.size() == 1) return leaf_sum(args, node.begin, row, col);
  const int split = comm::split_point(node);
  const float left = node_sum(args, {node.begin, split}, row, col);
  return left + node_sum(args, {split, node.end}, row, col);
}

void launch(OpContext& ctx, const LinearArgs& args) {
  const PackedWeight& w = *args.weight;
  const comm::LeafRange whole{w.first_leaf, w.first_leaf + w.num_leaves()};
  const auto nodes = args.nodes.empty() ? std::span(&whole, 1) : args.nodes;
  ctx.pool.parallel_for(w.n, [&](int64_t begin, int64_t end, int) {
    for (size_t i = 0; i < nodes.size(); ++i) {
      const comm::LeafRange local{nodes[i].begin - w.first_leaf, nodes[i].end - w.first_leaf};
      for (int64_t row = 0; row < args.x.rows; ++row)
        for (int64_t col = begin; col < end; ++col) {
          float sum = node_sum(args, local, row, col);
          if (args.bias != nullptr) sum += args.bias[col];
          args.out.row<float>(static_cast<int64_t>(i) * args.x.rows + row)[col] = sum;
        }
    }
  });
}

const KernelTable<LinearArgs>::Add kAdd({"linear_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0, supports_all,
                                         launch});

}  // namespace
}  // namespace chorale::worker
