#include "worker/ops/activation.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void activation(OpContext& ctx, const ActivationArgs& args) {
  check_matrix(ctx, args.x, args.x.rows, args.x.cols);
  check_matrix(ctx, args.out, args.x.rows, args.x.cols);
  check_f32(args.x);
  check_compute_type(args.out);
  if (args.out.rows == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
