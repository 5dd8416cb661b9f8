#include "worker/ops/logits.h"

#include <limits>

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"
#include "worker/ops/math.h"

namespace chorale::worker {

void logit_stats(OpContext& ctx, const LogitStatsArgs& args) {
  check_matrix(ctx, args.logits, args.logits.rows, args.logits.cols);
  check_f32(args.logits);
  if (args.logits.rows == 0 || args.logits.cols == 0) return;
  CHECK(args.stats != nullptr);
  select_kernel(ctx, args).launch(ctx, args);
}

float fold_log_sum_exp(std::span<const SoftmaxStats> stats) {
  SoftmaxStats total{-std::numeric_limits<float>::infinity(), 0.0f};
  for (const SoftmaxStats& chunk : stats) {
    const float max = total.max > chunk.max ? total.max : chunk.max;
    if (max == -std::numeric_limits<float>::infinity()) continue;  // nothing but masked ids so far
    total.sum = total.sum * exp_f32(total.max - max) + chunk.sum * exp_f32(chunk.max - max);
    total.max = max;
  }
  return total.max + log_f32(total.sum);
}

void top_k(OpContext& ctx, const TopKArgs& args) {
  check_matrix(ctx, args.logits, args.logits.rows, args.logits.cols);
  check_f32(args.logits);
  CHECK(args.k >= 1 && args.k <= args.logits.cols);
  if (args.logits.rows == 0) return;
  CHECK(args.ids != nullptr);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
