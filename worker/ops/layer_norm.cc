#include "worker/ops/layer_norm.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void layer_norm(OpContext& ctx, const LayerNormArgs& args) {
  check_matrix(ctx, args.x, args.x.rows, args.x.cols);
  check_matrix(ctx, args.out, args.x.rows, args.x.cols);
  check_f32(args.x);
  check_compute_type(args.out);
  CHECK_GT(args.x.cols, 0);
  CHECK(args.weight != nullptr);
  if (args.x.rows == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
