#include "worker/ops/residual_norm.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void residual_norm(OpContext& ctx, const ResidualNormArgs& args) {
  check_matrix(ctx, args.residual, args.residual.rows, args.residual.cols);
  check_matrix(ctx, args.sum, args.residual.rows, args.residual.cols);
  check_matrix(ctx, args.out, args.residual.rows, args.residual.cols);
  check_f32(args.residual);
  check_f32(args.sum);
  check_compute_type(args.out);
  CHECK_GT(args.residual.cols, 0);
  CHECK(args.weight != nullptr);
  CHECK(args.kind == parallel::NormKind::kLayer || args.bias == nullptr);
  CHECK(args.out.data != args.residual.data || args.residual.rows == 0);
  if (args.residual.rows == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
