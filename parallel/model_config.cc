#include "parallel/model_config.h"

#include <array>
#include <cmath>

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

/// Upper bounds that no real model reaches; they keep products of sizes far from overflow.
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHidden = int64_t{1} << 20;
constexpr int64_t kMaxIntermediate = int64_t{1} << 22;
constexpr int kMaxLayers = 4096;
constexpr int kMaxHeads = 4096;
constexpr int kMaxHeadDim = 256;
constexpr int64_t kMaxPositions = int64_t{1} << 28;

void check_range(std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    fail(ErrorCode::kInvalidArgument, "model config: {} is {}, expected {} to {}", field, value, low, high);
}

void check_positive(std::string_view field, double value) {
  if (!(value > 0) || !std::isfinite(value))
    fail(ErrorCode::kInvalidArgument, "model config: {} is {}, expected a positive number", field, value);
}

void encode_rope(const RopeConfig& rope, ByteWriter& out) {
  out.put(rope.theta);
  out.put(rope.rotary_dim);
  out.put(rope.scaling);
  out.put(rope.factor);
  out.put(rope.low_freq_factor);
  out.put(rope.high_freq_factor);
  out.put(rope.original_max_positions);
  out.put(rope.attention_factor.has_value());
  out.put(rope.attention_factor.value_or(0));
  out.put(rope.beta_fast);
  out.put(rope.beta_slow);
  out.put(rope.truncate);
  out.put(rope.freq_factors);
}

RopeConfig decode_rope(ByteReader& in) {
  RopeConfig rope;
  in.get(rope.theta);
  in.get(rope.rotary_dim);
  in.get(rope.scaling);
  in.get(rope.factor);
  in.get(rope.low_freq_factor);
  in.get(rope.high_freq_factor);
  in.get(rope.original_max_positions);
  const bool has_attention_factor = in.get<uint8_t>() != 0;
  const auto attention_factor = in.get<double>();
  if (has_attention_factor) rope.attention_factor = attention_factor;
  in.get(rope.beta_fast);
  in.get(rope.beta_slow);
  rope.truncate = in.get<uint8_t>() != 0;
  rope.freq_factors = in.get_vector<double>();
  return rope;
}

}  // namespace

std::string_view to_string(NormKind kind) { return kind == NormKind::kRms ? "rms_norm" : "layer_norm"; }
std::string_view to_string(PositionKind kind) { return kind == PositionKind::kRope ? "rope" : "learned"; }

std::string_view to_string(Activation activation) {
  constexpr std::array<std::string_view, 4> kNames{"silu", "gelu_tanh", "gelu", "relu"};
  return kNames[static_cast<size_t>(activation)];
}

std::string_view to_string(RopeScaling scaling) {
  constexpr std::array<std::string_view, 4> kNames{"none", "linear", "llama3", "yarn"};
  return kNames[static_cast<size_t>(scaling)];
}

void ModelConfig::validate() const {
  check_range("vocab_size", vocab_size, 1, kMaxVocab);
  check_range("hidden_size", hidden_size, 1, kMaxHidden);
  check_range("intermediate_size", intermediate_size, 1, kMaxIntermediate);
  check_range("num_layers", num_layers, 1, kMaxLayers);
  check_range("num_heads", num_heads, 1, kMaxHeads);
  check_range("num_kv_heads", num_kv_heads, 1, kMaxHeads);
  check_range("head_dim", head_dim, 1, kMaxHeadDim);
  check_range("max_positions", max_positions, 1, kMaxPositions);
  check_range("sliding_window", sliding_window, 0, kMaxPositions);
  check_positive("norm_eps", norm_eps);
  if (num_heads % num_kv_heads != 0)
    fail(ErrorCode::kInvalidArgument, "model config: {} query heads are not a multiple of {} KV heads", num_heads,
         num_kv_heads);
  if (position != PositionKind::kRope) return;
  check_positive("rope theta", rope.theta);
  check_positive("rope factor", rope.factor);
  check_range("rotary_dim", rope.rotary_dim, 2, head_dim);
  if (rope.rotary_dim % 2 != 0)
    fail(ErrorCode::kInvalidArgument, "model config: rotary_dim is {}, expected an even number", rope.rotary_dim);
  const bool stretched = rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kYarn;
  if (stretched) check_range("rope original_max_positions", rope.original_max_positions, 1, kMaxPositions);
  if (!rope.freq_factors.empty() && static_cast<int>(rope.freq_factors.size()) != rope.rotary_dim / 2)
    fail(ErrorCode::kInvalidArgument, "model config: {} rope frequency factors, expected {}", rope.freq_factors.size(),
         rope.rotary_dim / 2);
}

std::string ModelConfig::to_string() const {
  std::string text = fmt::format(
      "{}: {} layers, hidden {}, {} heads / {} KV heads of {}, intermediate {}, vocabulary {}, {} positions ({}",
      architecture, num_layers, hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size, vocab_size,
      max_positions, parallel::to_string(position));
  if (position == PositionKind::kRope && rope.scaling != RopeScaling::kNone)
    text += fmt::format(" {} x{}", parallel::to_string(rope.scaling), rope.factor);
  text += ")";
  if (sliding_window > 0) text += fmt::format(", window {}", sliding_window);
  return text + fmt::format(", stored {}", chorale::to_string(stored_dtype));
}

void ModelConfig::encode(ByteWriter& out) const {
  out.put(architecture);
  out.put(vocab_size);
  out.put(hidden_size);
  out.put(intermediate_size);
  out.put(num_layers);
  out.put(num_heads);
  out.put(num_kv_heads);
  out.put(head_dim);
  out.put(max_positions);
  out.put(sliding_window);
  out.put(norm_eps);
  out.put(norm);
  out.put(position);
  out.put(activation);
  out.put(mlp);
  encode_rope(rope, out);
  for (Presence p : {attention_bias, attention_output_bias, mlp_bias, qk_norm, tied_lm_head}) out.put(p);
  out.put(stored_dtype);
  out.put(bos_id.has_value());
  out.put(bos_id.value_or(0));
  out.put(eos_ids);
}

ModelConfig ModelConfig::decode(ByteReader& in) {
  ModelConfig config;
  config.architecture = in.get_string();
  in.get(config.vocab_size);
  in.get(config.hidden_size);
  in.get(config.intermediate_size);
  in.get(config.num_layers);
  in.get(config.num_heads);
  in.get(config.num_kv_heads);
  in.get(config.head_dim);
  in.get(config.max_positions);
  in.get(config.sliding_window);
  in.get(config.norm_eps);
  in.get(config.norm);
  in.get(config.position);
  in.get(config.activation);
  in.get(config.mlp);
  config.rope = decode_rope(in);
  for (Presence* p :
       {&config.attention_bias, &config.attention_output_bias, &config.mlp_bias, &config.qk_norm, &config.tied_lm_head})
    in.get(*p);
  in.get(config.stored_dtype);
  const bool has_bos = in.get<uint8_t>() != 0;
  const auto bos = in.get<int32_t>();
  if (has_bos) config.bos_id = bos;
  config.eos_ids = in.get_vector<int32_t>();
  if (config.norm > NormKind::kLayer || config.position > PositionKind::kLearned ||
      config.activation > Activation::kRelu || config.rope.scaling > RopeScaling::kYarn ||
      config.stored_dtype > DType::kBool)
    fail(ErrorCode::kCorrupt, "model config names an unknown kind");
  return config;
}

}  // namespace chorale::parallel
