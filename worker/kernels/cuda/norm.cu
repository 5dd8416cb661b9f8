// Norms of rows, or of heads within rows: rms_norm, layer_norm, and both fused with the residual addition before them
// (worker/ops/residual_norm.h). One block a group of `dim` elements, a quad of elements a thread at a time, 32 to 1024
// threads by `dim`. Reads every input once: the group waits in shared memory for its sums (in global memory, and is
// read again, when it does not fit); writes the output once, and the residual where there is one. Order (N4): lanes
// 0..15 of the first warp are the virtual lanes; lane l takes elements l, l + 16, ... one after the other from shared
// memory, and the 16 sums fold as a tree by shuffles. The other warps wait for the result.
#include "worker/kernels/cuda/quads.cuh"
#include "worker/kernels/cuda/row_lanes.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/layer_norm.h"
#include "worker/ops/residual_norm.h"
#include "worker/ops/rms_norm.h"

namespace chorale::worker {
namespace {

constexpr int64_t kStagedDim = 16384;   // 64 KiB of shared memory; two blocks run beside each other
constexpr unsigned kMaxThreads = 1024;  // a row of 4096 is one access a thread: what counts for few rows is latency
constexpr unsigned kHeader = 4;         // floats before the group in shared memory: mean, scale

using parallel::NormKind;

template <typename Out>
struct Params {
  Rows<float> x;  // the residual, where `sum` is given; else read only
  Rows<const float> sum;
  Rows<Out> out;
  const float* sum_bias;  // [dim] or null
  const float* weight;    // [dim]
  const float* bias;      // [dim] or null; of layer norms
  int64_t groups, dim;
  float eps;
  NormKind kind;
  bool staged, aligned;
};

/// x, or what it is after residual += sum + bias, for this thread's quads; kept in `stage` where there is one.
template <typename Out>
__device__ __forceinline__ void load_group(const Params<Out>& p, float* x, const float* sum, float* stage) {
  for (int64_t i = int64_t{4} * thread_index().x; i < p.dim; i += int64_t{4} * block_dims().x) {
    float v[4];
    load_quad(v, x + i, p.dim - i, p.aligned);
    if (sum != nullptr) {
      float s[4], b[4];
      load_quad(s, sum + i, p.dim - i, p.aligned);
      if (p.sum_bias != nullptr) load_quad(b, p.sum_bias + i, p.dim - i, p.aligned);
#pragma unroll
      for (int k = 0; k < 4; ++k) v[k] = v[k] + (p.sum_bias != nullptr ? s[k] + b[k] : s[k]);
      store_quad(x + i, v, p.dim - i, p.aligned);
    }
    if (stage != nullptr) store_quad(stage + i, v, p.dim - i, true);
  }
}

/// The first warp's work: header[0] = mean (of layer norms), header[1] = 1 / sqrt(mean square + eps).
__device__ __forceinline__ void sum_group(NormKind kind, const float* x, int64_t dim, float eps, float* header) {
  const auto n = static_cast<float>(dim);
  float mean = 0.0f, square = 0.0f;
  if (kind == NormKind::kLayer) {
    float sum = 0.0f;
    if (lane() < kRowLanes) {
#pragma unroll 16
      for (int64_t i = lane(); i < dim; i += kRowLanes) sum = sum + x[i];
    }
    mean = fold_sum(sum) / n;
    if (lane() < kRowLanes) {
#pragma unroll 16
      for (int64_t i = lane(); i < dim; i += kRowLanes) square = fma(x[i] - mean, x[i] - mean, square);
    }
  } else if (lane() < kRowLanes) {
#pragma unroll 16
    for (int64_t i = lane(); i < dim; i += kRowLanes) square = fma(x[i], x[i], square);
  }
  const float scale = 1.0f / sqrt_f32(fold_sum(square) / n + eps);
  if (lane() == 0) header[0] = mean, header[1] = scale;
}

template <typename Out>
__global__ void __launch_bounds__(kMaxThreads) norm_kernel(Params<Out> p) {
  const int64_t row = block_index().x / static_cast<unsigned>(p.groups);
  const int64_t first = block_index().x % static_cast<unsigned>(p.groups) * p.dim;
  auto* header = shared_memory<float>();
  float* x = p.x.row(row) + first;
  load_group(p, x, p.sum.data != nullptr ? p.sum.row(row) + first : nullptr, p.staged ? header + kHeader : nullptr);
  // What the first quad will be scaled with is on its way while the first warp adds up.
  int64_t i = int64_t{4} * thread_index().x;
  float w[4], b[4];
  const auto load_weights = [&] {
    load_quad(w, p.weight + i, p.dim - i, p.aligned);
    if (p.bias != nullptr) load_quad(b, p.bias + i, p.dim - i, p.aligned);
  };
  load_weights();
  sync_block();
  const float* group = p.staged ? header + kHeader : x;
  if (warp() == 0) sum_group(p.kind, group, p.dim, p.eps, header);
  sync_block();
  const float mean = header[0], scale = header[1];
  Out* out = p.out.row(row) + first;
  while (i < p.dim) {
    float v[4];
    load_quad(v, group + i, p.dim - i, p.staged || p.aligned);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float y = (p.kind == NormKind::kLayer ? v[k] - mean : v[k]) * scale;
      v[k] = p.bias != nullptr ? fma(y, w[k], b[k]) : y * w[k];
    }
    store_quad(out + i, v, p.dim - i, p.aligned);
    i += int64_t{4} * block_dims().x;
    if (i < p.dim) load_weights();
  }
}

/// What the three ops have in common; `sum` may be without data.
struct NormCall {
  NormKind kind;
  MatrixView x, sum;
  const float* sum_bias = nullptr;
  const float* weight;
  const float* bias = nullptr;
  int64_t dim;
  float eps;
  MatrixView out;
};

template <typename Out>
void launch_as(OpContext& ctx, const NormCall& call) {
  const int64_t groups = call.x.cols / call.dim;
  const bool aligned = starts_quads(call.x) && starts_quads(call.out) && (!call.sum || starts_quads(call.sum)) &&
                       starts_quads(call.sum_bias) && starts_quads(call.weight) && starts_quads(call.bias) &&
                       (groups == 1 || call.dim % 4 == 0);
  const bool staged = call.dim <= kStagedDim;
  const auto floats = static_cast<size_t>(kHeader + (staged ? (call.dim + 3) / 4 * 4 : 0));
  const Rows<const float> sum = call.sum ? rows_of<const float>(call.sum) : Rows<const float>{};
  launch(ctx, norm_kernel<Out>,
         {.grid = {static_cast<unsigned>(call.x.rows * groups)},
          .block = {quad_threads(call.dim, kMaxThreads)},
          .shared_bytes = floats * sizeof(float)},
         Params<Out>{rows_of<float>(call.x), sum, rows_of<Out>(call.out), call.sum_bias, call.weight, call.bias, groups,
                     call.dim, call.eps, call.kind, staged, aligned});
}
void launch_norm(OpContext& ctx, const NormCall& call) {
  as_type(call.out.dtype, [&](auto type) { launch_as<decltype(type)>(ctx, call); });
}

void rms_norm_launch(OpContext& ctx, const RmsNormArgs& args) {
  launch_norm(
      ctx,
      {.kind = NormKind::kRms, .x = args.x, .weight = args.weight, .dim = args.dim, .eps = args.eps, .out = args.out});
}
void layer_norm_launch(OpContext& ctx, const LayerNormArgs& args) {
  launch_norm(ctx, {.kind = NormKind::kLayer,
                    .x = args.x,
                    .weight = args.weight,
                    .bias = args.bias,
                    .dim = args.x.cols,
                    .eps = args.eps,
                    .out = args.out});
}
void residual_norm_launch(OpContext& ctx, const ResidualNormArgs& args) {
  launch_norm(ctx, {.kind = args.kind,
                    .x = args.residual,
                    .sum = args.sum,
                    .sum_bias = args.sum_bias,
                    .weight = args.weight,
                    .bias = args.bias,
                    .dim = args.residual.cols,
                    .eps = args.eps,
                    .out = args.out});
}

constexpr auto kIsa = parallel::Isa::kScalar;
const KernelTable<RmsNormArgs>::Add kAddRms({"rms_norm_block", kKernelDevice, kIsa, 0, supports_all, rms_norm_launch});
const KernelTable<LayerNormArgs>::Add kAddLayer({"layer_norm_block", kKernelDevice, kIsa, 0, supports_all,
                                                 layer_norm_launch});
const KernelTable<ResidualNormArgs>::Add kAddResidual({"residual_norm_block", kKernelDevice, kIsa, 0, supports_all,
                                                       residual_norm_launch});

}  // namespace
}  // namespace chorale::worker
