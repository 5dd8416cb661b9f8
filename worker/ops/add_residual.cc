#include "worker/ops/add_residual.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void add_residual(OpContext& ctx, const AddResidualArgs& args) {
  check_matrix(ctx, args.residual, args.residual.rows, args.residual.cols);
  check_matrix(ctx, args.sum, args.residual.rows, args.residual.cols);
  check_f32(args.residual);
  check_f32(args.sum);
  if (args.sum.rows == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
