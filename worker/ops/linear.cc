#include "worker/ops/linear.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void linear(OpContext& ctx, const LinearArgs& args) {
  check_linear(ctx, args);
  CHECK(args.x.dtype == args.weight->dtype);  // 16-bit weights take what its producer rounded to their type (N5)
  if (args.x.rows == 0 || args.weight->n == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
