#include "worker/models/rope_config.h"

#include <cmath>

#include "comm/base/error.h"
#include "parallel/checkpoint/checkpoint.h"
#include "worker/layers/rope_frequencies.h"

namespace chorale::worker {
namespace {
using parallel::ModelConfig;
using parallel::RopeConfig;
using parallel::RopeScaling;

constexpr double kMaxTheta = 1e15;
constexpr double kMaxFactor = 1e6;
constexpr std::string_view kSupportedTypes = "default, linear, llama3, yarn";

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
    for (std::string_view key : {"full_attention", "sliding_attention"})
      if (scaling->has(key)) scaling->refuse(key, "one set of rope parameters for all layers");
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

}  // namespace chorale::worker
