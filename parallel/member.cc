// What is known of a decoder's weights without a checkpoint: their names, their shapes, whether they stand once per
// layer.
#include <array>

#include "comm/base/error.h"
#include "parallel/architecture.h"

namespace chorale::parallel {

std::string_view to_string(Member member) {
  constexpr std::array<std::string_view, 25> kNames{"embedding",  "position_embedding",
                                                    "attn_norm",  "attn_norm_bias",
                                                    "wq",         "wq_bias",
                                                    "wk",         "wk_bias",
                                                    "wv",         "wv_bias",
                                                    "q_norm",     "k_norm",
                                                    "wo",         "wo_bias",
                                                    "ffn_norm",   "ffn_norm_bias",
                                                    "w_gate",     "w_gate_bias",
                                                    "w_up",       "w_up_bias",
                                                    "w_down",     "w_down_bias",
                                                    "final_norm", "final_norm_bias",
                                                    "lm_head"};
  static_assert(kNames.size() == static_cast<size_t>(Member::kLmHead) + 1);
  return kNames[static_cast<size_t>(member)];
}

bool is_layer_member(Member member) { return member >= Member::kAttnNorm && member <= Member::kWDownBias; }

Shape expected_shape(const ModelConfig& config, Member member) {
  const int64_t hidden = config.hidden_size;
  const int64_t intermediate = config.intermediate_size;
  const int64_t q = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv = int64_t{config.num_kv_heads} * config.head_dim;
  switch (member) {
    case Member::kEmbedding:
    case Member::kLmHead: return {config.vocab_size, hidden};
    case Member::kPositionEmbedding: return {config.max_positions, hidden};
    case Member::kWq: return {q, hidden};
    case Member::kWqBias: return {q};
    case Member::kWk:
    case Member::kWv: return {kv, hidden};
    case Member::kWkBias:
    case Member::kWvBias: return {kv};
    case Member::kQNorm:
    case Member::kKNorm: return {config.head_dim};
    case Member::kWo: return {hidden, q};
    case Member::kWGate:
    case Member::kWUp: return {intermediate, hidden};
    case Member::kWGateBias:
    case Member::kWUpBias: return {intermediate};
    case Member::kWDown: return {hidden, intermediate};
    case Member::kAttnNorm:
    case Member::kAttnNormBias:
    case Member::kWoBias:
    case Member::kFfnNorm:
    case Member::kFfnNormBias:
    case Member::kWDownBias:
    case Member::kFinalNorm:
    case Member::kFinalNormBias: return {hidden};
  }
  return {};
}

const Architecture& architecture_of(const ModelConfig& config) {
  const Architecture* entry = ArchitectureRegistry::find(config.architecture);
  if (entry == nullptr)
    fail(ErrorCode::kUnsupported, "architecture '{}' is not supported; known: {}", config.architecture,
         ArchitectureRegistry::names());
  return *entry;
}

}  // namespace chorale::parallel
