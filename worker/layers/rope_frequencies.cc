#include "worker/layers/rope_frequencies.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace chorale::worker {
namespace {
using parallel::RopeConfig;
using parallel::RopeScaling;

// Wavelengths above the old context are divided by the factor, short ones stay, those between are blended (Llama 3.1).
double llama3_frequency(const RopeConfig& rope, double freq) {
  const auto context = static_cast<double>(rope.original_max_positions);
  const double wavelength = 2 * std::numbers::pi / freq;
  if (wavelength < context / rope.high_freq_factor) return freq;
  if (wavelength > context / rope.low_freq_factor) return freq / rope.factor;
  const double smooth = (context / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * freq / rope.factor + smooth * freq;
}

// The dim whose frequency turns `rotations` times over the original context (YaRN, "NTK-by-parts").
double yarn_dim(const RopeConfig& rope, double rotations) {
  const auto context = static_cast<double>(rope.original_max_positions);
  return rope.rotary_dim * log_f64(context / (rotations * 2 * std::numbers::pi)) / (2 * log_f64(rope.theta));
}

void scale_yarn(const RopeConfig& rope, std::vector<double>& inv_freq) {
  double low = yarn_dim(rope, rope.beta_fast), high = yarn_dim(rope, rope.beta_slow);
  if (rope.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, rope.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const double extrapolated = 1 - std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    inv_freq[i] = inv_freq[i] / rope.factor * (1 - extrapolated) + inv_freq[i] * extrapolated;
  }
}

}  // namespace

double yarn_mscale(double factor, double m) { return factor <= 1.0 ? 1.0 : 0.1 * m * log_f64(factor) + 1.0; }

RopeFrequencies rope_frequencies(const RopeConfig& rope) {
  RopeFrequencies result;
  for (int i = 0; i < rope.rotary_dim; i += 2)
    result.inv_freq.push_back(1.0 / pow_f64(rope.theta, static_cast<double>(i) / rope.rotary_dim));
  for (size_t i = 0; i < rope.freq_factors.size(); ++i) result.inv_freq[i] /= rope.freq_factors[i];
  switch (rope.scaling) {
    case RopeScaling::kNone: break;
    case RopeScaling::kLinear:
      for (double& freq : result.inv_freq) freq /= rope.factor;
      break;
    case RopeScaling::kLlama3:
      for (double& freq : result.inv_freq) freq = llama3_frequency(rope, freq);
      break;
    case RopeScaling::kYarn:
      scale_yarn(rope, result.inv_freq);
      result.attention_factor = rope.attention_factor.value_or(yarn_mscale(rope.factor));
      break;
  }
  return result;
}

// x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 atanh((m - 1) / (m + 1)), whose argument is below 0.172: 12 terms
// leave an error under 1e-19.
double log_f64(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact
  if (m < std::numbers::sqrt2 / 2) m *= 2, --exponent;
  const double s = (m - 1) / (m + 1), square = s * s;
  double sum = 0;
  for (int k = 23; k >= 1; k -= 2) sum = sum * square + 1.0 / k;
  return 2 * s * sum + exponent * std::numbers::ln2;
}

// exp(y ln x): t = n ln 2 + r with |r| <= ln 2 / 2, Taylor's series to r^17.
double pow_f64(double x, double y) {
  const double t = y * log_f64(x);
  const double n = std::nearbyint(t / std::numbers::ln2);
  const double r = t - n * std::numbers::ln2;
  double sum = 1.0;
  for (int k = 17; k >= 1; --k) sum = sum * r / k + 1.0;
  return std::ldexp(sum, static_cast<int>(n));
}

}  // namespace chorale::worker
