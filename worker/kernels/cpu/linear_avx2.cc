// linear with AVX2 and FMA: tiles of up to 6 rows x 16 outputs (12 of 16 registers hold sums). float32 weights, and
// bf16 weights widened. Order of additions: linear_tile-inl.h. Threads and caches: linear_panels.cc.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/linear_panels.h"
#include "worker/ops/kernel.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace chorale::worker {
namespace {

#include "worker/kernels/cpu/vec_avx2-inl.h"
// Vec above; the tiles use it.
#include "worker/kernels/cpu/linear_tile-inl.h"

constexpr int kMaxRows = 6, kBudget = 6;
constexpr int kMaxWidenedRows = 5;  // a sixth row would spill: masks and halves need registers too

void launch(OpContext& ctx, const LinearArgs& args) {
  static const panels::TileSet f32 = make_tiles<F32Weights, kMaxRows, kBudget>();
  static const panels::TileSet widened = make_tiles<WidenedWeights, kMaxWidenedRows, kBudget>();
  panels::run_linear(ctx, args, args.weight->dtype == DType::kF32 ? f32 : widened);
}

}  // namespace
}  // namespace chorale::worker

#pragma GCC pop_options

namespace chorale::worker {
namespace {
const KernelTable<LinearArgs>::Add kAdd({"linear_avx2", DeviceKind::kCpu, parallel::Isa::kAvx2, 10, supports_all,
                                         launch});
}  // namespace
}  // namespace chorale::worker
