// What a decoder model is, in this project's words: sizes, norms, positions, activation. Architectures fill it from
// config.json or GGUF metadata (worker/models); the planner, scheduler and layers read it. It knows no layout and no
// device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/bytes.h"
#include "comm/base/dtype.h"

namespace chorale::parallel {

enum class NormKind : uint8_t { kRms, kLayer };
enum class PositionKind : uint8_t { kRope, kLearned };
enum class Activation : uint8_t { kSilu, kGeluTanh, kGelu, kRelu };
enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };
enum class MlpKind : uint8_t { kGated, kPlain };  // silu(gate) * up, or activation(up)
enum class Presence : uint8_t { kAbsent, kPresent };

std::string_view to_string(NormKind kind);
std::string_view to_string(PositionKind kind);
std::string_view to_string(Activation activation);
std::string_view to_string(RopeScaling scaling);

/// Rotary position embedding (RoFormer, arXiv:2104.09864) and the ways its frequencies are stretched (Llama 3.1; YaRN,
/// arXiv:2309.00071).
struct RopeConfig {
  double theta = 10000.0;
  int rotary_dim = 0;  // dims of a head that rotate
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // llama3
  double high_freq_factor = 4.0;  // llama3
  int64_t original_max_positions = 0;
  std::optional<double> attention_factor;  // yarn: multiplies cos and sin; derived from factor when absent
  double beta_fast = 32.0;                 // yarn
  double beta_slow = 1.0;                  // yarn
  bool truncate = true;                    // yarn: round the correction range to whole dims
  std::vector<double> freq_factors;        // GGUF rope_freqs: divides each frequency; empty: none
  bool operator==(const RopeConfig&) const = default;
};

struct ModelConfig {
  std::string architecture;  // name in the registry: "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;  // stored, never derived
  int64_t max_positions = 0;
  int64_t sliding_window = 0;  // 0: full attention
  double norm_eps = 1e-5;
  NormKind norm = NormKind::kRms;
  PositionKind position = PositionKind::kRope;
  Activation activation = Activation::kSilu;
  MlpKind mlp = MlpKind::kGated;
  RopeConfig rope;
  Presence attention_bias = Presence::kAbsent;         // q, k, v
  Presence attention_output_bias = Presence::kAbsent;  // o
  Presence mlp_bias = Presence::kAbsent;
  Presence qk_norm = Presence::kAbsent;  // rms norm of each head of q and k before rope
  Presence tied_lm_head = Presence::kAbsent;
  DType stored_dtype = DType::kF32;  // what most weights are stored in (quantised counts as bf16); decides --dtype auto
  std::optional<int32_t> bos_id;
  std::vector<int32_t> eos_ids;

  /// Throws Error{kInvalidArgument} with the field, its value and what was expected.
  void validate() const;
  std::string to_string() const;
  void encode(ByteWriter& out) const;
  static ModelConfig decode(ByteReader& in);
  bool operator==(const ModelConfig&) const = default;
};

}  // namespace chorale::parallel
