// GPT-2 (Radford et al., 2019, "Language Models are Unsupervised Multitask Learners"): pre-norm decoder with layer
// norms, learned positions, biases everywhere, an ungated MLP, and an lm_head tied to the embedding.
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "parallel/architecture.h"
#include "worker/models/config_reader.h"
#include "worker/models/decoder.h"

namespace chorale::worker {
namespace {
using parallel::Activation;
using parallel::Member;
using parallel::ModelConfig;
using parallel::Need;
using parallel::Orientation;
using parallel::Presence;
using parallel::ShardKind;
using parallel::WeightSpec;

// What is fixed in every GPT-2.
ModelConfig gpt2() {
  ModelConfig config;
  config.norm = parallel::NormKind::kLayer;
  config.position = parallel::PositionKind::kLearned;
  config.mlp = parallel::MlpKind::kPlain;
  config.activation = Activation::kGeluTanh;
  config.attention_bias = config.attention_output_bias = config.mlp_bias = Presence::kPresent;
  return config;
}

void set_heads(ModelConfig& config, int64_t num_heads, std::string_view where) {
  config.num_heads = config.num_kv_heads = static_cast<int>(num_heads);
  if (config.hidden_size % num_heads != 0 || config.hidden_size / num_heads > kHeadDimRange.max)
    fail(ErrorCode::kCorrupt, "{}: hidden size {} over {} heads, expected a whole number up to {}", where,
         config.hidden_size, num_heads, kHeadDimRange.max);
  config.head_dim = static_cast<int>(config.hidden_size / num_heads);
}

Activation activation_from_hf(const JsonConfig& json) {
  const std::string name = json.find_string("activation_function").value_or("gelu_new");
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  if (name == "gelu") return Activation::kGelu;
  if (name == "relu") return Activation::kRelu;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  json.refuse("activation_function", "gelu_new, gelu_pytorch_tanh, gelu_fast, gelu, relu, silu, swish");
}

ModelConfig config_from_hf(const nlohmann::json& object) {
  const JsonConfig json(object, "config.json");
  ModelConfig config = gpt2();
  config.vocab_size = json.get_int("vocab_size", kSizeRange);
  config.hidden_size = json.get_int("n_embd", kSizeRange);
  config.num_layers = static_cast<int>(json.get_int("n_layer", kCountRange));
  set_heads(config, json.get_int("n_head", kCountRange), "config.json: \"n_embd\" / \"n_head\"");
  config.intermediate_size = json.find_int("n_inner", kSizeRange).value_or(4 * config.hidden_size);
  config.max_positions = json.get_int("n_positions", kPositionRange);
  config.norm_eps = json.find_float("layer_norm_epsilon", 1e-15, 1.0).value_or(1e-5);
  config.activation = activation_from_hf(json);
  if (!json.find_bool("scale_attn_weights").value_or(true)) json.refuse("scale_attn_weights", "true");
  json.require_false("scale_attn_by_inverse_layer_idx");
  json.require_false("add_cross_attention");
  config.tied_lm_head = json.find_bool("tie_word_embeddings").value_or(true) ? Presence::kPresent : Presence::kAbsent;
  read_special_ids(json, config);
  constexpr int32_t kEndOfText = 50256;
  if (!json.contains("bos_token_id")) config.bos_id = kEndOfText;
  if (!json.contains("eos_token_id")) config.eos_ids = {kEndOfText};
  return config;
}

ModelConfig config_from_gguf(const parallel::GgufFile& file) {
  const GgufConfig gguf(file);
  ModelConfig config = gpt2();
  config.vocab_size = vocab_size_of(gguf);
  config.hidden_size = gguf.get_int("embedding_length", kSizeRange);
  config.num_layers = static_cast<int>(gguf.get_int("block_count", kCountRange));
  set_heads(config, gguf.get_int("attention.head_count", kCountRange), "GGUF metadata");
  config.intermediate_size = gguf.get_int("feed_forward_length", kSizeRange);
  config.max_positions = gguf.get_int("context_length", kPositionRange);
  config.norm_eps = gguf.get_float("attention.layer_norm_epsilon", 1e-15, 1.0);
  config.tied_lm_head = gguf.has_tensor("output.weight") ? Presence::kAbsent : Presence::kPresent;
  read_special_ids(gguf, config);
  return config;
}

// Hugging Face stores Conv1D weights [in, out] and q, k, v as one tensor; checkpoints of the bare model lack
// "transformer.".
std::vector<WeightSpec> weights(const ModelConfig& config) {
  using enum Member;
  constexpr auto kRequired = Need::kRequired;
  constexpr auto kInOut = Orientation::kInOut;
  constexpr auto kOutIn = Orientation::kOutIn;
  constexpr std::string_view kQkv = "transformer.h.{}.attn.c_attn.weight|h.{}.attn.c_attn.weight";
  constexpr std::string_view kQkvBias = "transformer.h.{}.attn.c_attn.bias|h.{}.attn.c_attn.bias";
  constexpr std::string_view kGgufQkv = "blk.{}.attn_qkv.weight", kGgufQkvBias = "blk.{}.attn_qkv.bias";
  return {
      {kEmbedding, "transformer.wte.weight|wte.weight", "token_embd.weight", ShardKind::kLookup},
      {kPositionEmbedding, "transformer.wpe.weight|wpe.weight", "position_embd.weight", ShardKind::kLookup},
      {kAttnNorm, "transformer.h.{}.ln_1.weight|h.{}.ln_1.weight", "blk.{}.attn_norm.weight"},
      {kAttnNormBias, "transformer.h.{}.ln_1.bias|h.{}.ln_1.bias", "blk.{}.attn_norm.bias"},
      {kWq, kQkv, kGgufQkv, ShardKind::kQueryHeads, kRequired, kInOut, 0, 3},
      {kWk, kQkv, kGgufQkv, ShardKind::kKvHeads, kRequired, kInOut, 1, 3},
      {kWv, kQkv, kGgufQkv, ShardKind::kKvHeads, kRequired, kInOut, 2, 3},
      {kWqBias, kQkvBias, kGgufQkvBias, ShardKind::kQueryHeads, kRequired, kOutIn, 0, 3},
      {kWkBias, kQkvBias, kGgufQkvBias, ShardKind::kKvHeads, kRequired, kOutIn, 1, 3},
      {kWvBias, kQkvBias, kGgufQkvBias, ShardKind::kKvHeads, kRequired, kOutIn, 2, 3},
      {kWo, "transformer.h.{}.attn.c_proj.weight|h.{}.attn.c_proj.weight", "blk.{}.attn_output.weight",
       ShardKind::kHeadColumns, kRequired, kInOut},
      {kWoBias, "transformer.h.{}.attn.c_proj.bias|h.{}.attn.c_proj.bias", "blk.{}.attn_output.bias"},
      {kFfnNorm, "transformer.h.{}.ln_2.weight|h.{}.ln_2.weight", "blk.{}.ffn_norm.weight"},
      {kFfnNormBias, "transformer.h.{}.ln_2.bias|h.{}.ln_2.bias", "blk.{}.ffn_norm.bias"},
      {kWUp, "transformer.h.{}.mlp.c_fc.weight|h.{}.mlp.c_fc.weight", "blk.{}.ffn_up.weight", ShardKind::kMlpRows,
       kRequired, kInOut},
      {kWUpBias, "transformer.h.{}.mlp.c_fc.bias|h.{}.mlp.c_fc.bias", "blk.{}.ffn_up.bias", ShardKind::kMlpRows},
      {kWDown, "transformer.h.{}.mlp.c_proj.weight|h.{}.mlp.c_proj.weight", "blk.{}.ffn_down.weight",
       ShardKind::kMlpColumns, kRequired, kInOut},
      {kWDownBias, "transformer.h.{}.mlp.c_proj.bias|h.{}.mlp.c_proj.bias", "blk.{}.ffn_down.bias"},
      {kFinalNorm, "transformer.ln_f.weight|ln_f.weight", "output_norm.weight"},
      {kFinalNormBias, "transformer.ln_f.bias|ln_f.bias", "output_norm.bias"},
      {kLmHead, "lm_head.weight", "output.weight", ShardKind::kVocabRows},
  };
}

class Gpt2 final : public Decoder {
 public:
  explicit Gpt2(const StageParts& parts) : Decoder(parts) {
    if (parts.is_first_stage()) positions_.emplace(parts, Member::kPositionEmbedding);
  }
  void embed(Step& step, const int32_t* ids, MatrixView x) override {
    Decoder::embed(step, ids, x);
    positions_->add_to(step, step.arrays.positions, x);
  }

 private:
  std::optional<Embedding> positions_;
};

const parallel::ArchitectureRegistry::Add kAddArchitecture(
    {"gpt2", {"gpt2"}, {"gpt2"}, config_from_hf, config_from_gguf, weights, {".attn.bias", ".attn.masked_bias"}});
const ModelRegistry::Add kAddModel({"gpt2", make<Gpt2>});

}  // namespace
}  // namespace chorale::worker
