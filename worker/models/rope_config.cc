#include "worker/models/rope_config.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "comm/base/error.h"
#include "parallel/checkpoint/checkpoint.h"

namespace chorale::worker {
namespace {
using parallel::ModelConfig;
using parallel::RopeConfig;
using parallel::RopeScaling;

constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr std::string_view kSupportedTypes = "default, linear, llama3, yarn";

// 0.1 m ln(factor) + 1 (YaRN, arXiv:2309.00071, section 3.4).
double yarn_mscale(double factor, double m = 1.0) { return factor <= 1.0 ? 1.0 : 0.1 * m * log_f64(factor) + 1.0; }

void read_yarn(const JsonConfig& scaling, const ModelConfig& config, RopeConfig& rope) {
  if (!scaling.has("factor"))
    rope.factor = static_cast<double>(config.max_positions) / static_cast<double>(rope.original_max_positions);
  rope.beta_fast = scaling.find_float("beta_fast", 0, kMaxFactor).value_or(0);
  rope.beta_slow = scaling.find_float("beta_slow", 0, kMaxFactor).value_or(0);
  if (rope.beta_fast == 0) rope.beta_fast = 32;  // Hugging Face takes 0 for absent
  if (rope.beta_slow == 0) rope.beta_slow = 1;
  rope.truncate = scaling.find_bool("truncate").value_or(true);
  rope.attention_factor = scaling.find_float("attention_factor", 0, kMaxFactor);
  const double mscale = scaling.find_float("mscale", 0, kMaxFactor).value_or(0);
  const double all_dim = scaling.find_float("mscale_all_dim", 0, kMaxFactor).value_or(0);
  if (!rope.attention_factor && mscale != 0 && all_dim != 0)
    rope.attention_factor = yarn_mscale(rope.factor, mscale) / yarn_mscale(rope.factor, all_dim);
}

void read_scaling(const JsonConfig& json, const JsonConfig& scaling, const ModelConfig& config, RopeConfig& rope) {
  const std::string type = scaling.find_string("rope_type").value_or(scaling.find_string("type").value_or("default"));
  const std::string_view key = scaling.has("rope_type") ? "rope_type" : "type";
  if (type == "default") return;
  // The top-level key wins, then the one beside the factor, then the model's own length.
  const auto top = json.find_int("original_max_position_embeddings", kPositionRange);
  const auto own = scaling.find_int("original_max_position_embeddings", kPositionRange);
  rope.original_max_positions = top.value_or(own.value_or(config.max_positions));
  if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.factor = scaling.find_float("factor", 1e-6, kMaxFactor).value_or(1.0);
    read_yarn(scaling, config, rope);
  } else if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = scaling.get_float("factor", 1e-6, kMaxFactor);
  } else if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    rope.factor = scaling.get_float("factor", 1e-6, kMaxFactor);
    rope.low_freq_factor = scaling.get_float("low_freq_factor", 1e-6, kMaxFactor);
    rope.high_freq_factor = scaling.get_float("high_freq_factor", 1e-6, kMaxFactor);
    if (rope.high_freq_factor <= rope.low_freq_factor)
      fail(ErrorCode::kCorrupt, "config.json: \"high_freq_factor\" is {}, expected more than low_freq_factor, {}",
           rope.high_freq_factor, rope.low_freq_factor);
  } else {
    scaling.refuse(key, kSupportedTypes);
  }
}

// Divisors that a converter computed (Llama 3.1 files); one for each pair of dims.
std::vector<double> read_freq_factors(const GgufConfig& gguf, int rotary_dim) {
  for (std::string_view name : {"rope_factors_long.weight", "rope_factors_short.weight"})
    if (gguf.has_tensor(name)) fail(ErrorCode::kUnsupported, "GGUF tensor {}: longrope is not supported", name);
  const parallel::StoredTensor* tensor = gguf.find_tensor("rope_freqs.weight");
  if (tensor == nullptr) return {};
  const int64_t pairs = rotary_dim / 2;
  if (tensor->shape.num_dims() != 1 || tensor->shape[0] != pairs)
    fail(ErrorCode::kCorrupt, "GGUF tensor rope_freqs.weight has shape {}, expected [{}]", tensor->shape.to_string(),
         pairs);
  std::vector<float> values(pairs);
  parallel::read_f32(*tensor, 0, 1, 0, pairs, values.data(), pairs);
  for (float value : values)
    if (!std::isfinite(value) || value <= 0)
      fail(ErrorCode::kCorrupt, "GGUF tensor rope_freqs.weight holds {}, expected positive numbers", value);
  return {values.begin(), values.end()};
}

void read_gguf_yarn(const GgufConfig& gguf, const ModelConfig& config, RopeConfig& rope) {
  rope.original_max_positions =
      gguf.find_int("rope.scaling.original_context_length", kPositionRange).value_or(config.max_positions);
  rope.beta_fast = gguf.find_float("rope.scaling.yarn_beta_fast", 1e-6, kMaxFactor).value_or(32);
  rope.beta_slow = gguf.find_float("rope.scaling.yarn_beta_slow", 1e-6, kMaxFactor).value_or(1);
  for (std::string_view key : {"rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"}) {
    const auto value = gguf.find_float(key, -kMaxFactor, kMaxFactor);
    if (value && *value != 1.0 && *value >= 0)
      fail(ErrorCode::kUnsupported, "GGUF metadata: {} = {} is not supported; supported: 1", gguf.full_key(key),
           *value);
  }
  if (const auto multiplier = gguf.find_float("rope.scaling.yarn_log_multiplier", -kMaxFactor, kMaxFactor);
      multiplier && *multiplier != 0)
    fail(ErrorCode::kUnsupported, "GGUF metadata: {} = {} is not supported",
         gguf.full_key("rope.scaling.yarn_log_multiplier"), *multiplier);
  // Here the file's factor multiplies the paper's, in config.json it replaces it.
  if (const auto attn = gguf.find_float("rope.scaling.attn_factor", 1e-6, kMaxFactor))
    rope.attention_factor = *attn * yarn_mscale(rope.factor);
}

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

parallel::RopeConfig rope_from_hf(const JsonConfig& json, const ModelConfig& config) {
  RopeConfig rope;
  rope.rotary_dim = config.head_dim;
  const auto old_spelling = json.find_object("rope_scaling");
  const auto new_spelling = json.find_object("rope_parameters");
  const auto& scaling = old_spelling ? old_spelling : new_spelling;
  const auto inner = scaling ? scaling->find_float("rope_theta", 1.0 + 1e-6, kMaxTheta) : std::nullopt;
  rope.theta = inner.value_or(json.find_float("rope_theta", 1.0 + 1e-6, kMaxTheta).value_or(10000.0));
  const auto reject_partial = [](const JsonConfig& keys) {
    if (keys.find_float("partial_rotary_factor", 0, 1).value_or(1.0) != 1.0) keys.refuse("partial_rotary_factor", "1");
  };
  reject_partial(json);
  if (scaling) {
    reject_partial(*scaling);
    read_scaling(json, *scaling, config, rope);
  }
  return rope;
}

parallel::RopeConfig rope_from_gguf(const GgufConfig& gguf, const ModelConfig& config) {
  RopeConfig rope;
  rope.theta = gguf.find_float("rope.freq_base", 1.0 + 1e-6, kMaxTheta).value_or(10000.0);
  rope.rotary_dim =
      static_cast<int>(gguf.find_int("rope.dimension_count", {2, config.head_dim}).value_or(config.head_dim));
  rope.freq_factors = read_freq_factors(gguf, rope.rotary_dim);
  const std::string* type = gguf.find_string("rope.scaling.type");
  // Files older than rope.scaling.* carry a linear factor alone.
  const auto old_linear = gguf.find_float("rope.scale_linear", 0, kMaxFactor);
  if (type == nullptr && old_linear && *old_linear != 0 && *old_linear != 1) {
    rope.scaling = RopeScaling::kLinear;
    rope.factor = *old_linear;
  }
  if (type == nullptr || *type == "none") return rope;
  rope.factor = gguf.find_float("rope.scaling.factor", 0, kMaxFactor).value_or(1.0);
  if (rope.factor == 0) rope.factor = 1.0;
  if (*type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else if (*type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    read_gguf_yarn(gguf, config, rope);
  } else {
    fail(ErrorCode::kUnsupported, "GGUF metadata: {} = \"{}\" is not supported; supported: none, linear, yarn",
         gguf.full_key("rope.scaling.type"), type->substr(0, 40));
  }
  return rope;
}

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
