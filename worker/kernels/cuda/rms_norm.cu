// Root-mean-square norm of rows, or of heads within rows. One warp a group of `dim` elements, four warps a block.
// Reads each element twice (the second time from L1), writes it once.
// Order (N4): lanes i and i + 16 of the warp work as virtual lane i mod 16: lane l takes elements l, l + 16, ... for
// l < 16; the upper half only loads and stores. The 16 sums fold as a tree by shuffles.
#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/kernels/cuda/row_lanes.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/rms_norm.h"

namespace chorale::worker {
namespace {

constexpr unsigned kWarpsPerBlock = 4;

template <typename Out>
struct Params {
  Rows<const float> x;
  Rows<Out> out;
  const float* weight;  // [dim]
  int64_t rows, groups, dim;
  float eps;
};

template <typename Out>
__global__ void __launch_bounds__(32 * kWarpsPerBlock) rms_norm_kernel(Params<Out> p) {
  const int64_t task = int64_t{block_index().x} * kWarpsPerBlock + warp();
  if (task >= p.rows * p.groups) return;
  const int64_t row = task / p.groups, first = task % p.groups * p.dim;
  const float* x = p.x.row(row) + first;
  float sum = 0.0f;
  if (lane() < kRowLanes)
    for (int64_t i = lane(); i < p.dim; i += kRowLanes) sum = fma(x[i], x[i], sum);
  const float scale = 1.0f / sqrt_f32(fold_sum(sum) / static_cast<float>(p.dim) + p.eps);
  Out* out = p.out.row(row) + first;
  for (int64_t i = lane(); i < p.dim; i += 32) store(out[i], (x[i] * scale) * p.weight[i]);
}

template <typename Out>
void launch_as(OpContext& ctx, const RmsNormArgs& args) {
  const int64_t groups = args.x.cols / args.dim, tasks = args.x.rows * groups;
  if (tasks == 0) return;
  launch(ctx, rms_norm_kernel<Out>, {.grid = {ceil_div(tasks, kWarpsPerBlock)}, .block = {32 * kWarpsPerBlock}},
         Params<Out>{rows_of<const float>(args.x), rows_of<Out>(args.out), args.weight, args.x.rows, groups, args.dim,
                     args.eps});
}

void rms_norm_launch(OpContext& ctx, const RmsNormArgs& args) {
  args.out.dtype == DType::kBF16 ? launch_as<BFloat16>(ctx, args) : launch_as<float>(ctx, args);
}

const KernelTable<RmsNormArgs>::Add kAdd({"rms_norm_warp", kKernelDevice, parallel::Isa::kScalar, 0, supports_all,
                                          rms_norm_launch});

}  // namespace
}  // namespace chorale::worker
