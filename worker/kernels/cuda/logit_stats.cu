// logit_stats: (max, sum of exponentials) of each chunk of 1024 ids. Half a warp a chunk, 128 threads a block, so eight
// chunks; reads a chunk twice, the second time from L1, and writes 8 bytes.
// Order (N4, N8): lane l of the half takes ids l, l + 16, ... one after the other, for the max and again for the sum;
// the 16 results fold as a tree by shuffles. Missing ids count as -inf and +0.
#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/kernels/cuda/math.cuh"
#include "worker/kernels/cuda/row_lanes.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/logits.h"

namespace chorale::worker {
namespace {

constexpr unsigned kThreads = 128, kChunksPerBlock = kThreads / kRowLanes;

struct Params {
  Rows<const float> logits;
  SoftmaxStats* stats;  // [rows, chunks]
  int64_t cols;
  unsigned tasks, chunks;  // tasks = rows * chunks
};

__global__ void __launch_bounds__(kThreads) logit_stats_kernel(Params p) {
  const unsigned task = block_index().x * kChunksPerBlock + thread_index().x / kRowLanes;
  const unsigned virtual_lane = lane() % kRowLanes, leader = lane() - virtual_lane;
  // Half warps without a chunk take part in the shuffles with nothing.
  const int64_t first = int64_t{task % p.chunks} * kVocabChunk;
  const int64_t left = p.cols - first, n = task >= p.tasks ? 0 : left < kVocabChunk ? left : kVocabChunk;
  const float* logits = p.logits.row(task >= p.tasks ? 0 : task / p.chunks) + first;
  float max = -infinity();
#pragma unroll 8
  for (int64_t i = virtual_lane; i < n; i += kRowLanes) max = max > logits[i] ? max : logits[i];
  max = shuffle(fold_halves_max(max), leader);
  float sum = 0.0f;
  if (max != -infinity()) {
#pragma unroll 4
    for (int64_t i = virtual_lane; i < n; i += kRowLanes) sum = sum + exp_of(logits[i] - max);
  }
  sum = fold_halves_sum(sum);
  if (virtual_lane == 0 && task < p.tasks) p.stats[task] = {max, sum};
}

void logit_stats_launch(OpContext& ctx, const LogitStatsArgs& args) {
  const unsigned chunks = ceil_div(args.logits.cols, kVocabChunk);
  const unsigned tasks = static_cast<unsigned>(args.logits.rows) * chunks;
  launch(ctx, logit_stats_kernel, {.grid = {ceil_div(tasks, kChunksPerBlock)}, .block = {kThreads}},
         Params{rows_of<const float>(args.logits), args.stats, args.logits.cols, tasks, chunks});
}

const KernelTable<LogitStatsArgs>::Add kAdd({"logit_stats_half_warp", kKernelDevice, parallel::Isa::kScalar, 0,
                                             supports_all, logit_stats_launch});

}  // namespace
}  // namespace chorale::worker
