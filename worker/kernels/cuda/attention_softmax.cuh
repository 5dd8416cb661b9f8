// The float32 arithmetic of attention on tensor cores, in units of log 2: scores, 2^x, and the fold of splits. What the
// warps of a tile and the kernel that folds share; attention_mma.cuh says in which order.
#pragma once

#include <cmath>

#include "worker/kernels/cuda/math.cuh"
#include "worker/kernels/cuda/matrix_instructions.cuh"

namespace chorale::worker::inline SIMT::attention_mma {

constexpr float kLog2E = 1.44269504088896341f;

/// Chebyshev fit of (2^r - 1) / r on |r| <= 0.5, highest power first; 2^r is within 2.1e-7 of itself.
inline constexpr float kExp2Poly[] = {0x1.5ec866p-10f, 0x1.3cbf6p-7f, 0x1.c6afeep-5f, 0x1.ebfa4cp-3f, 0x1.62e43p-1f};

/// 2^x for x <= 0 (and a little above); exactly 1 at 0, exactly 0 below -126.
__device__ __forceinline__ float exp2_of(float x) {
  const float shifted = x + math_constants::kRoundMagic;  // its low bits are the exponent
  const float r = x - (shifted - math_constants::kRoundMagic);
  const float y = fma(polynomial<kExp2Poly>(r), r, 1.0f);
  return x < -126.0f ? 0.0f : float_of(bits_of(y) + (bits_of(shifted) << 23));
}
__device__ __forceinline__ float larger(float a, float b) { return fmaxf(a, b); }  // one instruction
/// What scores are compared with: a row that has seen no key compares with 0.
__device__ __forceinline__ float base_of(float max) { return max == -infinity() ? 0.0f : max; }

/// How a product of q and k becomes a score in units of log 2.
struct ScoreRule {
  float scale;     // scale * log2 e, or scale / softcap
  float cap_log2;  // softcap * log2 e, 0: none
  __device__ __forceinline__ void apply(FragmentC (&scores)[2]) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) scores[i / 4].value[i % 4] = scores[i / 4].value[i % 4] * scale;
    if (cap_log2 > 0.0f)
#pragma unroll
      for (int i = 0; i < 8; ++i) scores[i / 4].value[i % 4] = cap_log2 * tanh_of(scores[i / 4].value[i % 4]);
  }
};

/// How a row's total takes in its next split; also the fold kernel's arithmetic.
struct Fold {
  float max, e1, e2;
  bool keeps, takes;  // the total, the split, as it is: the other has seen no key
  __device__ __forceinline__ Fold(float total_max, float split_max)
      : max(larger(total_max, split_max)),
        e1(exp2_of(total_max - base_of(max))),
        e2(exp2_of(split_max - base_of(max))),
        keeps(split_max == -infinity()),
        takes(total_max == -infinity()) {}
  __device__ __forceinline__ float operator()(float total, float split) const {
    return keeps ? total : takes ? split : mixed(total, split);
  }
  __device__ __forceinline__ bool mixes() const { return !keeps && !takes; }
  __device__ __forceinline__ float mixed(float total, float split) const { return fma(split, e2, total * e1); }
};
__device__ __forceinline__ float quotient(float acc, float sum) {
  return sum > 0.0f ? acc / sum + 0.0f : 0.0f;  // + 0: a negative zero becomes positive
}

}  // namespace chorale::worker::inline SIMT::attention_mma
