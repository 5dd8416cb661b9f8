// exp, log, tanh and erf for kernels: worker/ops/math.cc operation by operation, so that a GPU gives a CPU's bits (N4).
#pragma once

#include <cstdint>
#include <utility>

#include "worker/kernels/cuda/simt.cuh"
#include "worker/ops/math_constants.h"

namespace chorale::worker::inline SIMT {

/// Horner's rule with fma, highest power first. Device code cannot index a host array, but each element is a constant.
template <const auto& kTable, size_t... kIndex>
__device__ __forceinline__ float horner(float x, std::index_sequence<kIndex...>) {
  constexpr float kCoefficients[] = {kTable[kIndex]...};
  float p = kCoefficients[0];
#pragma unroll
  for (size_t i = 1; i < sizeof...(kIndex); ++i) p = fma(p, x, kCoefficients[i]);
  return p;
}
template <const auto& kTable>
__device__ __forceinline__ float polynomial(float x) {
  return horner<kTable>(x, std::make_index_sequence<sizeof(kTable) / sizeof(float)>());
}

__device__ __forceinline__ float infinity() { return float_of(0x7f800000u); }
__device__ __forceinline__ float with_sign_of(float magnitude, float sign) {
  return float_of((bits_of(magnitude) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}
__device__ __forceinline__ float abs_of(float x) { return float_of(bits_of(x) & 0x7fffffffu); }

__device__ __forceinline__ float exp_of(float x) {
  using namespace math_constants;  // NOLINT(google-build-using-namespace)
  const float shifted = fma(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  float r = fma(n, -kLn2High, x);
  r = fma(n, -kLn2Low, r);
  const float y = fma(polynomial<kExpPoly>(r), r * r, r) + 1.0f;
  const auto exponent = static_cast<int32_t>(bits_of(shifted) - bits_of(kRoundMagic));
  const int32_t half = exponent >> 1;
  const float scale1 = float_of((static_cast<uint32_t>(half) + 127u) << 23);
  const float scale2 = float_of((static_cast<uint32_t>(exponent - half) + 127u) << 23);
  const float result = (y * scale1) * scale2;
  if (x < kExpLowest) return 0.0f;
  if (x > kExpHighest) return infinity();
  return result;
}

__device__ __forceinline__ float log_of(float x) {
  if (!(x > 0.0f)) return x == 0.0f ? -infinity() : float_of(0x7fc00000u);
  if (x == infinity()) return x;
  const int64_t bits = bits_of(static_cast<double>(x));
  const int64_t e = (bits - 0x3fe6a09e667f3bcd) >> 52;  // sqrt(1/2)
  const double m = double_of(bits - (e << 52));
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 17.0;
#pragma unroll
  for (int k = 15; k >= 1; k -= 2) p = p * z + 1.0 / k;
  return static_cast<float>(2.0 * s * p + static_cast<double>(e) * 0.69314718055994530942);
}

__device__ __forceinline__ float tanh_of(float x) {
  using namespace math_constants;  // NOLINT(google-build-using-namespace)
  const float a = abs_of(x), z = x * x;
  const float small = fma(polynomial<kTanhPoly>(z) * z, x, x);
  const float large = with_sign_of(1.0f - 2.0f / (exp_of(2.0f * a) + 1.0f), x);
  return a < kTanhSplit ? small : large;
}

__device__ __forceinline__ float erf_of(float x) {
  using namespace math_constants;  // NOLINT(google-build-using-namespace)
  const float a = abs_of(x), z = x * x;
  const float small = polynomial<kErfPoly>(z) * x;
  const float q = polynomial<kErfcPoly>(a < kErfLimit ? a : kErfLimit);
  const float large = with_sign_of(1.0f - exp_of(-q), x);
  return a < 1.0f ? small : large;
}

}  // namespace chorale::worker::inline SIMT
