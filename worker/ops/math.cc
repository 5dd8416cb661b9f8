#include "worker/ops/math.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "worker/ops/math_constants.h"

namespace chorale::worker {
namespace {
constexpr float kInf = std::numeric_limits<float>::infinity();
}  // namespace

using namespace math_constants;  // NOLINT(google-build-using-namespace)

// exp(x) = 2^n * exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; the scaling by 2^n is two exact factors so that n = 128
// works.
float exp_f32(float x) {
  const float shifted = std::fma(x, kLog2E, kRoundMagic);  // its low bits are n
  const float n = shifted - kRoundMagic;
  float r = std::fma(n, -kLn2High, x);
  r = std::fma(n, -kLn2Low, r);
  float p = kExpPoly[0];
  for (int i = 1; i < kExpTerms; ++i) p = std::fma(p, r, kExpPoly[i]);
  const float y = std::fma(p, r * r, r) + 1.0f;
  const auto exponent = static_cast<int32_t>(std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRoundMagic));
  const int32_t half = exponent >> 1;
  const float scale1 = std::bit_cast<float>((static_cast<uint32_t>(half) + 127u) << 23);
  const float scale2 = std::bit_cast<float>((static_cast<uint32_t>(exponent - half) + 127u) << 23);
  const float result = (y * scale1) * scale2;
  if (x < kExpLowest) return 0.0f;
  if (x > kExpHighest) return kInf;
  return result;
}

// x = m 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), |s| < 0.1716; in float64,
// rounded once.
float log_f32(float x) {
  if (!(x > 0.0f)) return x == 0.0f ? -kInf : std::numeric_limits<float>::quiet_NaN();
  if (x == kInf) return x;
  int64_t bits = std::bit_cast<int64_t>(static_cast<double>(x));
  const int64_t e = (bits - std::bit_cast<int64_t>(0.70710678118654752440)) >> 52;
  const double m = std::bit_cast<double>(bits - (e << 52));
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 17.0;
  for (int k = 15; k >= 1; k -= 2) p = p * z + 1.0 / k;
  return static_cast<float>(2.0 * s * p + static_cast<double>(e) * 0.69314718055994530942);
}

float tanh_f32(float x) {
  const float a = std::fabs(x), z = x * x;
  float p = kTanhPoly[0];
  for (int i = 1; i < kTanhTerms; ++i) p = std::fma(p, z, kTanhPoly[i]);
  const float small = std::fma(p * z, x, x);
  const float large = std::copysign(1.0f - 2.0f / (exp_f32(2.0f * a) + 1.0f), x);
  return a < kTanhSplit ? small : large;
}

float erf_f32(float x) {
  const float a = std::fabs(x), z = x * x;
  float p = kErfPoly[0];
  for (int i = 1; i < kErfTerms; ++i) p = std::fma(p, z, kErfPoly[i]);
  const float small = p * x;
  float q = kErfcPoly[0];
  const float b = a < kErfLimit ? a : kErfLimit;  // erf is 1 in float32 from here on
  for (int i = 1; i < kErfcTerms; ++i) q = std::fma(q, b, kErfcPoly[i]);
  const float large = std::copysign(1.0f - exp_f32(-q), x);
  return a < 1.0f ? small : large;
}

// Cody-Waite reduction by pi/2 in three parts with FMA, then Taylor polynomials on |r| <= pi/4 (errors below 2^-56).
SinCos sincos_f64(double x) {
  const double n = std::nearbyint(x * 0.63661977236758134308);
  double r = std::fma(n, -0x1.921fb54442d18p+0, x);
  r = std::fma(n, -0x1.1a62633145c07p-54, r);
  r = std::fma(n, 0x1.f1976b8p-110, r);
  const double z = r * r;
  double s = 1.0 / 355687428096000.0;  // 1/17!
  double c = 1.0 / 20922789888000.0;   // 1/16!
  constexpr double kSin[] = {-1.0 / 1307674368000.0, 1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
                             -1.0 / 5040.0,          1.0 / 120.0,        -1.0 / 6.0};
  constexpr double kCos[] = {-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0,
                             -1.0 / 720.0,         1.0 / 24.0,        -1.0 / 2.0};
  for (double k : kSin) s = std::fma(s, z, k);
  for (double k : kCos) c = std::fma(c, z, k);
  const double sine = std::fma(s * z, r, r), cosine = std::fma(c, z, 1.0);
  switch (static_cast<int64_t>(n) & 3) {
    case 0: return {sine, cosine};
    case 1: return {cosine, -sine};
    case 2: return {-sine, -cosine};
    default: return {-cosine, sine};
  }
}

}  // namespace chorale::worker
