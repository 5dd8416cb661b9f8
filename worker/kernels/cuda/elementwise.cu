// add_residual, silu_mul, activation, cast: one quad of one row a thread, 32 to 256 threads a block by the number of
// columns. Each reads its inputs once and writes its output once, 16 bytes at a time where rows are aligned; no sums,
// so no order. The operations of one element are those of worker/kernels/cpu/scalar_elementwise.cc.
#include "worker/kernels/cuda/math.cuh"
#include "worker/kernels/cuda/quads.cuh"
#include "worker/ops/activation.h"
#include "worker/ops/add_residual.h"
#include "worker/ops/cast.h"
#include "worker/ops/kernel.h"
#include "worker/ops/silu_mul.h"

namespace chorale::worker {
namespace {

// ---- add_residual ----
struct AddParams {
  Rows<float> residual;
  Rows<const float> sum;
  const float* bias;  // [cols] or null
  QuadGrid grid;
};

__global__ void __launch_bounds__(kQuadThreads) add_residual_kernel(AddParams p) {
  const auto [row, col, count] = quad_place(p.grid);
  if (count <= 0) return;
  float v[4], sum[4], bias[4];
  load_quad(v, p.residual.row(row) + col, count, p.grid.aligned);
  load_quad(sum, p.sum.row(row) + col, count, p.grid.aligned);
  if (p.bias != nullptr) load_quad(bias, p.bias + col, count, p.grid.aligned);
#pragma unroll
  for (int i = 0; i < 4; ++i) v[i] = v[i] + (p.bias != nullptr ? sum[i] + bias[i] : sum[i]);
  store_quad(p.residual.row(row) + col, v, count, p.grid.aligned);
}

void add_residual_launch(OpContext& ctx, const AddResidualArgs& args) {
  if (args.sum.cols == 0) return;
  const bool aligned = starts_quads(args.residual) && starts_quads(args.sum) && starts_quads(args.bias);
  const QuadGrid grid = quad_grid(args.sum.cols, aligned);
  launch(ctx, add_residual_kernel, quad_launch(grid, args.sum.rows),
         AddParams{rows_of<float>(args.residual), rows_of<const float>(args.sum), args.bias, grid});
}

// ---- silu_mul and activation: out = f(x), times up where that is given ----
template <typename Out>
struct ActivationParams {
  Rows<const float> x, up;  // up: without data in activation
  Rows<Out> out;
  QuadGrid grid;
  parallel::Activation function;
};

__device__ __forceinline__ float silu(float x) { return x / (1.0f + exp_of(-x)); }

__device__ __forceinline__ float apply(parallel::Activation function, float x) {
  switch (function) {
    case parallel::Activation::kSilu: return silu(x);
    case parallel::Activation::kRelu: return x > 0.0f ? x : 0.0f;
    case parallel::Activation::kGelu: return (0.5f * x) * (1.0f + erf_of(x * 0.70710678118654752f));
    case parallel::Activation::kGeluTanh: break;
  }
  const float u = x * fma(x * x, 0.035677408136300125f, 0.79788456080286536f);  // sqrt(2/pi) * 0.044715, sqrt(2/pi)
  return x / (1.0f + exp_of(-2.0f * u));
}

template <typename Out>
__global__ void __launch_bounds__(kQuadThreads) activation_kernel(ActivationParams<Out> p) {
  const auto [row, col, count] = quad_place(p.grid);
  if (count <= 0) return;
  float v[4], up[4];
  load_quad(v, p.x.row(row) + col, count, p.grid.aligned);
  if (p.up.data != nullptr) load_quad(up, p.up.row(row) + col, count, p.grid.aligned);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = apply(p.function, v[i]);
    if (p.up.data != nullptr) v[i] = v[i] * up[i];
  }
  store_quad(p.out.row(row) + col, v, count, p.grid.aligned);
}

template <typename Out>
void launch_activation(OpContext& ctx, parallel::Activation function, const MatrixView& x, const MatrixView& up,
                       const MatrixView& out) {
  const QuadGrid grid = quad_grid(x.cols, starts_quads(x) && starts_quads(out) && (!up || starts_quads(up)));
  launch(ctx, activation_kernel<Out>, quad_launch(grid, x.rows),
         ActivationParams<Out>{rows_of<const float>(x), up ? rows_of<const float>(up) : Rows<const float>{},
                               rows_of<Out>(out), grid, function});
}
void launch_activation(OpContext& ctx, parallel::Activation function, const MatrixView& x, const MatrixView& up,
                       const MatrixView& out) {
  if (x.cols == 0) return;
  as_type(out.dtype, [&](auto type) { launch_activation<decltype(type)>(ctx, function, x, up, out); });
}

void silu_mul_launch(OpContext& ctx, const SiluMulArgs& args) {
  launch_activation(ctx, parallel::Activation::kSilu, args.gate, args.up, args.out);
}
void activation_launch(OpContext& ctx, const ActivationArgs& args) {
  launch_activation(ctx, args.function, args.x, {}, args.out);
}

// ---- cast ----
template <typename In, typename Out>
struct CastParams {
  Rows<const In> x;
  Rows<Out> out;
  QuadGrid grid;
};

template <typename In, typename Out>
__global__ void __launch_bounds__(kQuadThreads) cast_kernel(CastParams<In, Out> p) {
  const auto [row, col, count] = quad_place(p.grid);
  if (count <= 0) return;
  float v[4];
  load_quad(v, p.x.row(row) + col, count, p.grid.aligned);
  store_quad(p.out.row(row) + col, v, count, p.grid.aligned);
}

template <typename In, typename Out>
void cast_as(OpContext& ctx, const CastArgs& args) {
  const QuadGrid grid = quad_grid(args.x.cols, starts_quads(args.x) && starts_quads(args.out));
  launch(ctx, cast_kernel<In, Out>, quad_launch(grid, args.x.rows),
         CastParams<In, Out>{rows_of<const In>(args.x), rows_of<Out>(args.out), grid});
}
void cast_launch(OpContext& ctx, const CastArgs& args) {
  if (args.x.cols == 0) return;
  as_type(args.x.dtype, [&](auto in) {
    as_type(args.out.dtype, [&](auto out) { cast_as<decltype(in), decltype(out)>(ctx, args); });
  });
}

constexpr auto kIsa = parallel::Isa::kScalar;
const KernelTable<AddResidualArgs>::Add kAdd1({"add_residual_quads", kKernelDevice, kIsa, 0, supports_all,
                                               add_residual_launch});
const KernelTable<SiluMulArgs>::Add kAdd2({"silu_mul_quads", kKernelDevice, kIsa, 0, supports_all, silu_mul_launch});
const KernelTable<ActivationArgs>::Add kAdd3({"activation_quads", kKernelDevice, kIsa, 0, supports_all,
                                              activation_launch});
const KernelTable<CastArgs>::Add kAdd4({"cast_quads", kKernelDevice, kIsa, 0, supports_all, cast_launch});

}  // namespace
}  // namespace chorale::worker
