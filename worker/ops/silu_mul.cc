#include "worker/ops/silu_mul.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void silu_mul(OpContext& ctx, const SiluMulArgs& args) {
  check_matrix(ctx, args.gate, args.gate.rows, args.gate.cols);
  check_matrix(ctx, args.up, args.gate.rows, args.gate.cols);
  check_matrix(ctx, args.out, args.gate.rows, args.gate.cols);
  check_f32(args.gate);
  check_f32(args.up);
  check_compute_type(args.out);
  if (args.out.rows == 0) return;
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
