#include "worker/models/decoder_config.h"

#include <algorithm>

#include "comm/base/error.h"
#include "worker/models/rope_config.h"

namespace chorale::worker {
namespace {
using parallel::Member;
using parallel::ModelConfig;
using parallel::Presence;
using parallel::ShardKind;
using parallel::WeightSpec;

constexpr double kMinEps = 1e-15, kMaxEps = 1.0;

void check_heads(const ModelConfig& config, std::string_view where) {
  if (config.num_heads % config.num_kv_heads != 0)
    fail(ErrorCode::kCorrupt, "{}: {} query heads are not a multiple of {} key/value heads", where, config.num_heads,
         config.num_kv_heads);
  if (config.head_dim % 2 != 0)
    fail(ErrorCode::kCorrupt, "{}: head_dim is {}, expected an even number for rotary positions", where,
         config.head_dim);
}

}  // namespace

ModelConfig decoder_from_hf(const JsonConfig& json, const DecoderDefaults& defaults) {
  ModelConfig config;
  config.vocab_size = json.get_int("vocab_size", kSizeRange);
  config.hidden_size = json.get_int("hidden_size", kSizeRange);
  config.intermediate_size = json.get_int("intermediate_size", kSizeRange);
  config.num_layers = static_cast<int>(json.get_int("num_hidden_layers", kCountRange));
  config.num_heads = static_cast<int>(json.get_int("num_attention_heads", kCountRange));
  const bool is_null = json.contains("num_key_value_heads");  // null means "as many as query heads" everywhere
  const int64_t absent_kv = is_null || defaults.num_kv_heads == 0 ? config.num_heads : defaults.num_kv_heads;
  config.num_kv_heads = static_cast<int>(json.find_int("num_key_value_heads", kCountRange).value_or(absent_kv));
  config.max_positions = json.find_int("max_position_embeddings", kPositionRange).value_or(defaults.max_positions);
  if (const auto head_dim = json.find_int("head_dim", kHeadDimRange)) {
    config.head_dim = static_cast<int>(*head_dim);
  } else if (defaults.head_dim != 0) {
    config.head_dim = defaults.head_dim;
  } else {
    if (config.hidden_size % config.num_heads != 0 || config.hidden_size / config.num_heads > kHeadDimRange.max)
      fail(ErrorCode::kCorrupt,
           "config.json: without \"head_dim\" it is hidden_size / num_attention_heads = {} / {}, expected a whole "
           "number "
           "up to {}",
           config.hidden_size, config.num_heads, kHeadDimRange.max);
    config.head_dim = static_cast<int>(config.hidden_size / config.num_heads);
  }
  check_heads(config, "config.json");
  config.norm_eps = json.find_float("rms_norm_eps", kMinEps, kMaxEps).value_or(1e-6);
  const std::string act = json.find_string("hidden_act").value_or("silu");
  if (act != "silu" && act != "swish") json.refuse("hidden_act", "silu");
  config.tied_lm_head = json.presence("tie_word_embeddings");
  config.rope = rope_from_hf(json, config);
  read_special_ids(json, config);
  if (!json.contains("bos_token_id")) config.bos_id = defaults.bos_id;
  if (!json.contains("eos_token_id") && defaults.eos_id) config.eos_ids = {*defaults.eos_id};
  return config;
}

ModelConfig decoder_from_gguf(const GgufConfig& gguf) {
  ModelConfig config;
  config.vocab_size = vocab_size_of(gguf);
  config.hidden_size = gguf.get_int("embedding_length", kSizeRange);
  config.intermediate_size = gguf.get_int("feed_forward_length", kSizeRange);
  config.num_layers = static_cast<int>(gguf.get_int("block_count", kCountRange));
  config.num_heads = static_cast<int>(gguf.get_int("attention.head_count", kCountRange));
  config.num_kv_heads =
      static_cast<int>(gguf.find_int("attention.head_count_kv", kCountRange).value_or(config.num_heads));
  config.max_positions = gguf.get_int("context_length", kPositionRange);
  const auto key_length = gguf.find_int("attention.key_length", kHeadDimRange);
  if (!key_length &&
      (config.hidden_size % config.num_heads != 0 || config.hidden_size / config.num_heads > kHeadDimRange.max))
    fail(ErrorCode::kCorrupt, "GGUF metadata: without {} it is {} / {}, expected a whole number up to {}",
         gguf.full_key("attention.key_length"), config.hidden_size, config.num_heads, kHeadDimRange.max);
  config.head_dim = static_cast<int>(key_length.value_or(config.hidden_size / config.num_heads));
  const int64_t value_length = gguf.find_int("attention.value_length", kHeadDimRange).value_or(config.head_dim);
  if (value_length != config.head_dim)
    fail(ErrorCode::kUnsupported, "GGUF metadata: {} = {} is not supported; supported: the key length, {}",
         gguf.full_key("attention.value_length"), value_length, config.head_dim);
  if (gguf.find_int("expert_count", {0, kCountRange.max}).value_or(0) > 0)
    fail(ErrorCode::kUnsupported, "GGUF metadata: {} > 0 is not supported: no mixture of experts yet",
         gguf.full_key("expert_count"));
  check_heads(config, "GGUF metadata");
  config.norm_eps = gguf.get_float("attention.layer_norm_rms_epsilon", kMinEps, kMaxEps);
  config.sliding_window = gguf.find_int("attention.sliding_window", {0, kPositionRange.max}).value_or(0);
  config.tied_lm_head = gguf.has_tensor("output.weight") ? Presence::kAbsent : Presence::kPresent;
  const auto presence_of = [&](std::string_view name) {
    return gguf.has_tensor(name) ? Presence::kPresent : Presence::kAbsent;
  };
  config.attention_bias = presence_of("blk.0.attn_q.bias");
  config.attention_output_bias = presence_of("blk.0.attn_output.bias");
  config.mlp_bias = presence_of("blk.0.ffn_up.bias");
  config.rope = rope_from_gguf(gguf, config);
  read_special_ids(gguf, config);
  return config;
}

int64_t uniform_window(const JsonConfig& json, const ModelConfig& config) {
  const bool is_used = json.find_bool("use_sliding_window").value_or(false);
  const auto window =
      json.contains("sliding_window") ? json.find_int("sliding_window", kPositionRange) : std::optional<int64_t>(4096);
  const auto first = json.find_int("max_window_layers", {0, kCountRange.max}).value_or(28);
  int64_t num_sliding = is_used && window ? std::max<int64_t>(0, config.num_layers - first) : 0;
  if (const auto types = json.find_strings("layer_types")) {
    if (static_cast<int>(types->size()) != config.num_layers)
      fail(ErrorCode::kCorrupt, "config.json: \"layer_types\" has {} entries, expected num_hidden_layers = {}",
           types->size(), config.num_layers);
    num_sliding = std::ranges::count(*types, "sliding_attention");
    if (num_sliding + std::ranges::count(*types, "full_attention") != config.num_layers)
      json.refuse("layer_types", "full_attention in all layers, or sliding_attention in all layers");
    if (num_sliding > 0 && (!is_used || !window))
      json.refuse("layer_types", "sliding_attention only with use_sliding_window and sliding_window");
  }
  if (num_sliding == 0) return 0;
  if (num_sliding != config.num_layers)
    json.refuse(json.has("layer_types") ? "layer_types" : "use_sliding_window",
                "the same attention in all layers (this mixes sliding and full)");
  return *window;
}

std::vector<WeightSpec> decoder_weights(const ModelConfig& config, parallel::RowOrder gguf_qk_order) {
  using enum Member;
  std::vector<WeightSpec> table = {
      {kEmbedding, "model.embed_tokens.weight|embed_tokens.weight", "token_embd.weight", ShardKind::kLookup},
      {kAttnNorm, "model.layers.{}.input_layernorm.weight|layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
      {kWq, "model.layers.{}.self_attn.q_proj.weight|layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight",
       ShardKind::kQueryHeads},
      {kWk, "model.layers.{}.self_attn.k_proj.weight|layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight",
       ShardKind::kKvHeads},
      {kWv, "model.layers.{}.self_attn.v_proj.weight|layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight",
       ShardKind::kKvHeads},
      {kWo, "model.layers.{}.self_attn.o_proj.weight|layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight",
       ShardKind::kHeadColumns},
      {kFfnNorm, "model.layers.{}.post_attention_layernorm.weight|layers.{}.post_attention_layernorm.weight",
       "blk.{}.ffn_norm.weight"},
      {kWGate, "model.layers.{}.mlp.gate_proj.weight|layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight",
       ShardKind::kMlpRows},
      {kWUp, "model.layers.{}.mlp.up_proj.weight|layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight",
       ShardKind::kMlpRows},
      {kWDown, "model.layers.{}.mlp.down_proj.weight|layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight",
       ShardKind::kMlpColumns},
      {kFinalNorm, "model.norm.weight|norm.weight", "output_norm.weight"},
      {kLmHead, "lm_head.weight", "output.weight", ShardKind::kVocabRows},
  };
  const auto add = [&](Presence presence, std::initializer_list<WeightSpec> specs) {
    if (presence == Presence::kPresent) table.insert(table.end(), specs);
  };
  add(config.attention_bias, {{kWqBias, "model.layers.{}.self_attn.q_proj.bias|layers.{}.self_attn.q_proj.bias",
                               "blk.{}.attn_q.bias", ShardKind::kQueryHeads},
                              {kWkBias, "model.layers.{}.self_attn.k_proj.bias|layers.{}.self_attn.k_proj.bias",
                               "blk.{}.attn_k.bias", ShardKind::kKvHeads},
                              {kWvBias, "model.layers.{}.self_attn.v_proj.bias|layers.{}.self_attn.v_proj.bias",
                               "blk.{}.attn_v.bias", ShardKind::kKvHeads}});
  add(config.attention_output_bias,
      {{kWoBias, "model.layers.{}.self_attn.o_proj.bias|layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias"}});
  add(config.qk_norm, {{kQNorm, "model.layers.{}.self_attn.q_norm.weight|layers.{}.self_attn.q_norm.weight",
                        "blk.{}.attn_q_norm.weight"},
                       {kKNorm, "model.layers.{}.self_attn.k_norm.weight|layers.{}.self_attn.k_norm.weight",
                        "blk.{}.attn_k_norm.weight"}});
  add(config.mlp_bias,
      {{kWGateBias, "model.layers.{}.mlp.gate_proj.bias|layers.{}.mlp.gate_proj.bias", "blk.{}.ffn_gate.bias",
        ShardKind::kMlpRows},
       {kWUpBias, "model.layers.{}.mlp.up_proj.bias|layers.{}.mlp.up_proj.bias", "blk.{}.ffn_up.bias",
        ShardKind::kMlpRows},
       {kWDownBias, "model.layers.{}.mlp.down_proj.bias|layers.{}.mlp.down_proj.bias", "blk.{}.ffn_down.bias"}});
  for (WeightSpec& spec : table)
    if (spec.member == kWq || spec.member == kWk || spec.member == kWqBias || spec.member == kWkBias)
      spec.gguf_row_order = gguf_qk_order;
  return table;
}

}  // namespace chorale::worker
