// rms_norm and layer_norm, scalar reference. Sums: element i in lane i mod 16, lanes folded as a tree; missing elements
// count as +0.

#include <cmath>

#include "worker/kernels/cpu/scalar_support.h"
#include "worker/ops/kernel.h"
#include "worker/ops/layer_norm.h"
#include "worker/ops/rms_norm.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {

void rms_norm_launch(OpContext& ctx, const RmsNormArgs& args) {
  const auto n = static_cast<float>(args.dim);
  ctx.pool.parallel_for(args.x.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t group = 0; group < args.x.cols; group += args.dim) {
        const float* x = args.x.row<float>(row) + group;
        float lane[kLanes] = {};
        for (int64_t i = 0; i < args.dim; ++i) lane[i % kLanes] = std::fma(x[i], x[i], lane[i % kLanes]);
        const float scale = 1.0f / std::sqrt(fold_sum(lane) / n + args.eps);
        for (int64_t i = 0; i < args.dim; ++i) store(args.out, row, group + i, (x[i] * scale) * args.weight[i]);
      }
  });
}

void layer_norm_launch(OpContext& ctx, const LayerNormArgs& args) {
  const int64_t dim = args.x.cols, padded = (dim + kLanes - 1) / kLanes * kLanes;
  const auto n = static_cast<float>(dim);
  ctx.pool.parallel_for(args.x.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = args.x.row<float>(row);
      float lane[kLanes] = {};
      for (int64_t i = 0; i < padded; ++i) lane[i % kLanes] = lane[i % kLanes] + (i < dim ? x[i] : 0.0f);
      const float mean = fold_sum(lane) / n;
      float square[kLanes] = {};
      for (int64_t i = 0; i < dim; ++i) square[i % kLanes] = std::fma(x[i] - mean, x[i] - mean, square[i % kLanes]);
      const float scale = 1.0f / std::sqrt(fold_sum(square) / n + args.eps);
      for (int64_t i = 0; i < dim; ++i) {
        const float y = (x[i] - mean) * scale;
        store(args.out, row, i, args.bias != nullptr ? std::fma(y, args.weight[i], args.bias[i]) : y * args.weight[i]);
      }
    }
  });
}

const KernelTable<RmsNormArgs>::Add kAddRms({"rms_norm_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                             supports_all, rms_norm_launch});
const KernelTable<LayerNormArgs>::Add kAddLayer({"layer_norm_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                                 supports_all, layer_norm_launch});

}  // namespace
}  // namespace chorale::worker
