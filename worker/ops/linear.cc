#include "worker/ops/linear.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void linear(OpContext& ctx, const LinearArgs& args) {
  CHECK(args.weight != nullptr);
  const PackedWeight& w = *args.weight;
  const int64_t num_nodes = args.nodes.empty() ? 1 : static_cast<int64_t>(args.nodes.size());
  check_matrix(ctx, args.x, args.x.rows, w.k);
  check_matrix(ctx, args.out, num_nodes * args.x.rows, w.n);
  CHECK(args.x.dtype == w.dtype);  // bf16 weights take activations that their producer rounded to bf16 (N5)
  check_f32(args.out);
  CHECK(args.bias == nullptr || num_nodes == 1);
  check_nodes(args.nodes, w.first_leaf, w.num_leaves());
  if (args.x.rows == 0 || w.n == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
