// residual_norm on a CPU: its two parts one after the other, each with the best kernel of the context's instruction
// set. The rows stay in cache between them, so one pass would gain little.
#include "worker/ops/residual_norm.h"

#include "worker/ops/add_residual.h"
#include "worker/ops/kernel.h"
#include "worker/ops/layer_norm.h"
#include "worker/ops/rms_norm.h"

namespace chorale::worker {
namespace {

void residual_norm_launch(OpContext& ctx, const ResidualNormArgs& args) {
  add_residual(ctx, {.residual = args.residual, .sum = args.sum, .bias = args.sum_bias});
  if (args.kind == parallel::NormKind::kRms)
    rms_norm(ctx,
             {.x = args.residual, .weight = args.weight, .dim = args.residual.cols, .eps = args.eps, .out = args.out});
  else
    layer_norm(ctx, {.x = args.residual, .weight = args.weight, .bias = args.bias, .eps = args.eps, .out = args.out});
}

const KernelTable<ResidualNormArgs>::Add kAdd({"residual_norm_parts", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                               supports_all, residual_norm_launch});

}  // namespace
}  // namespace chorale::worker
