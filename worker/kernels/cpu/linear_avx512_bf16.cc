// linear on bf16 weights with vdpbf16ps: tiles of up to 14 rows x 32 outputs. The instruction is two float32 FMAs with
// denormals flushed, upper product first (Intel SDM, VDPBF16PS: "FP32 FMA with daz in, ftz out and RNE rounding").
// Compute threads flush denormals too and the packing puts the lower k in the upper half, so the bits are those of
// linear_avx512 and of the scalar reference.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/linear_panels.h"
#include "worker/ops/kernel.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")

namespace chorale::worker {
namespace {

#include "worker/kernels/cpu/vec_avx512-inl.h"
// Vec above; the tiles use it.
#include "worker/kernels/cpu/linear_tile-inl.h"

struct DotWeights {
  static constexpr int kKPerStep = 2, kWords = 1;
  template <int R, int V>
  static VEC_INLINE void step(const std::byte* w, const uint32_t* x, Vec (&acc)[R][V]) {
    __m512i weight[V];
    for (int v = 0; v < V; ++v) weight[v] = _mm512_loadu_si512(w + 64 * v);
    for (int r = 0; r < R; ++r) {
      const __m512i value = _mm512_set1_epi32(static_cast<int>(x[r]));
      for (int v = 0; v < V; ++v)
        acc[r][v].v =
            _mm512_dpbf16_ps(acc[r][v].v, reinterpret_cast<__m512bh>(weight[v]), reinterpret_cast<__m512bh>(value));
    }
  }
  static void pack(const void* source, Index k, uint32_t* x, Index stride) {
    const auto* s = static_cast<const uint16_t*>(source);
    for (Index i = 0; i + 2 <= k; i += 2) x[i / 2 * stride] = static_cast<uint32_t>(s[i]) << 16 | s[i + 1];
    if (k % 2 != 0) x[k / 2 * stride] = static_cast<uint32_t>(s[k - 1]) << 16;
  }
};

constexpr int kMaxRows = 14, kBudget = 28;

bool supports(const OpContext&, const LinearArgs& args) { return args.weight->dtype == DType::kBF16; }

void launch(OpContext& ctx, const LinearArgs& args) {
  static const panels::TileSet tiles = make_tiles<DotWeights, kMaxRows, kBudget>();
  panels::run_linear(ctx, args, tiles);
}

}  // namespace
}  // namespace chorale::worker

#pragma GCC pop_options

namespace chorale::worker {
namespace {
const KernelTable<LinearArgs>::Add kAdd({"linear_avx512_bf16", DeviceKind::kCpu, parallel::Isa::kAvx512Bf16, 30,
                                         supports, launch});
}  // namespace
}  // namespace chorale::worker
