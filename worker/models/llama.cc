// Llama 2 (arXiv:2307.09288), Llama 3 (arXiv:2407.21783), SmolLM2 and Mistral (arXiv:2310.06825): pre-norm decoder, RMS
// norm, rotary positions, grouped-query attention (Mistral: within a sliding window), SwiGLU.
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "worker/models/decoder.h"
#include "worker/models/decoder_config.h"

namespace chorale::worker {
namespace {
using parallel::ModelConfig;

ModelConfig llama_from_hf(const JsonConfig& json) {
  ModelConfig config = decoder_from_hf(json, {.max_positions = 2048, .bos_id = 1, .eos_id = 2});
  config.attention_bias = config.attention_output_bias = json.presence("attention_bias");
  config.mlp_bias = json.presence("mlp_bias");
  return config;
}

ModelConfig mistral_from_hf(const JsonConfig& json) {
  ModelConfig config = decoder_from_hf(json, {.num_kv_heads = 8, .max_positions = 4096 * 32, .bos_id = 1, .eos_id = 2});
  constexpr int64_t kWindowIfAbsent = 4096;  // a null means full attention
  config.sliding_window =
      json.find_int("sliding_window", kPositionRange).value_or(json.contains("sliding_window") ? 0 : kWindowIfAbsent);
  return config;
}

ModelConfig config_from_hf(const nlohmann::json& object) {
  const JsonConfig json(object, "config.json");
  return json.find_string("model_type") == "mistral" ? mistral_from_hf(json) : llama_from_hf(json);
}

ModelConfig config_from_gguf(const parallel::GgufFile& file) {
  const GgufConfig gguf(file);
  ModelConfig config = decoder_from_gguf(gguf);
  // The interleaved rows below assume that the whole head turns.
  if (config.rope.rotary_dim != config.head_dim)
    fail(ErrorCode::kUnsupported, "GGUF metadata: {} = {} is not supported; supported: the head size, {}",
         gguf.full_key("rope.dimension_count"), config.rope.rotary_dim, config.head_dim);
  return config;
}

std::vector<parallel::WeightSpec> weights(const ModelConfig& config) {
  return decoder_weights(config, parallel::RowOrder::kInterleavedHalves);
}

const parallel::ArchitectureRegistry::Add kAddArchitecture({"llama",
                                                            {"llama", "mistral"},
                                                            {"llama"},
                                                            config_from_hf,
                                                            config_from_gguf,
                                                            weights,
                                                            {".rotary_emb.inv_freq", "rope_freqs.weight"}});
const ModelRegistry::Add kAddModel({"llama", make<Decoder>});

}  // namespace
}  // namespace chorale::worker
