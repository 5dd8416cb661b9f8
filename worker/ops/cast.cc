#include "worker/ops/cast.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void cast(OpContext& ctx, const CastArgs& args) {
  check_matrix(ctx, args.x, args.x.rows, args.x.cols);
  check_matrix(ctx, args.out, args.x.rows, args.x.cols);
  CHECK(args.x.dtype == DType::kF32 || args.x.dtype == DType::kBF16 || args.x.dtype == DType::kF16);
  check_compute_type(args.out);
  if (args.out.rows == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
