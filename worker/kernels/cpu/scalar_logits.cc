// logit_stats and top_k, scalar reference. A chunk of 1024 ids is reduced in 16 virtual lanes (id i in lane i mod 16),
// twice: max, then sum of exponentials; missing ids count as -inf and +0.

#include <algorithm>
#include <limits>

#include "worker/kernels/cpu/scalar_support.h"
#include "worker/kernels/cpu/top_k_rows.h"
#include "worker/ops/kernel.h"
#include "worker/ops/logits.h"
#include "worker/ops/math.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();

SoftmaxStats stats_of(const float* logits, int64_t n) {
  float max_lane[kLanes], sum_lane[kLanes] = {};
  std::fill(max_lane, max_lane + kLanes, kMinusInf);
  for (int64_t i = 0; i < n; ++i)
    max_lane[i % kLanes] = max_lane[i % kLanes] > logits[i] ? max_lane[i % kLanes] : logits[i];
  const float max = fold_max(max_lane);
  if (max == kMinusInf) return {kMinusInf, 0.0f};  // every id masked
  for (int64_t i = 0; i < n; ++i) sum_lane[i % kLanes] = sum_lane[i % kLanes] + exp_f32(logits[i] - max);
  return {max, fold_sum(sum_lane)};
}

void stats_launch(OpContext& ctx, const LogitStatsArgs& args) {
  const int64_t chunks = (args.logits.cols + kVocabChunk - 1) / kVocabChunk;
  ctx.pool.parallel_for(args.logits.rows * chunks, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / chunks, first = i % chunks * kVocabChunk;
      args.stats[i] = stats_of(args.logits.row<float>(row) + first, std::min(kVocabChunk, args.logits.cols - first));
    }
  });
}

int64_t find_greater(const float* x, int64_t begin, int64_t n, float threshold) {
  while (begin < n && !(x[begin] > threshold)) ++begin;
  return begin;
}

void top_k_launch(OpContext& ctx, const TopKArgs& args) { top_k_rows(ctx, args, find_greater); }

const KernelTable<LogitStatsArgs>::Add kAddStats({"logit_stats_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                                  supports_all, stats_launch});
const KernelTable<TopKArgs>::Add kAddTopK({"top_k_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0, supports_all,
                                           top_k_launch});

}  // namespace
}  // namespace chorale::worker
