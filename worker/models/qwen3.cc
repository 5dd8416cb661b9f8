// Qwen3 (arXiv:2505.09388): Llama's block with RMS norms on each head of q and k before rope, and a head size of its
// own.
#include <nlohmann/json.hpp>

#include "worker/models/decoder.h"
#include "worker/models/decoder_config.h"

namespace chorale::worker {
namespace {
using parallel::ModelConfig;

ModelConfig config_from_hf(const nlohmann::json& object) {
  const JsonConfig json(object, "config.json");
  ModelConfig config = decoder_from_hf(json, {.num_kv_heads = 32, .head_dim = 128, .max_positions = 32768});
  config.qk_norm = parallel::Presence::kPresent;
  config.attention_bias = config.attention_output_bias = json.presence("attention_bias");
  config.sliding_window = uniform_window(json, config);
  return config;
}

ModelConfig config_from_gguf(const parallel::GgufFile& file) {
  ModelConfig config = decoder_from_gguf(GgufConfig(file));
  config.qk_norm = parallel::Presence::kPresent;
  return config;
}

std::vector<parallel::WeightSpec> weights(const ModelConfig& config) {
  return decoder_weights(config, parallel::RowOrder::kPlain);
}

const parallel::ArchitectureRegistry::Add kAddArchitecture({"qwen3",
                                                            {"qwen3"},
                                                            {"qwen3"},
                                                            config_from_hf,
                                                            config_from_gguf,
                                                            weights,
                                                            {".rotary_emb.inv_freq", "rope_freqs.weight"}});
const ModelRegistry::Add kAddModel({"qwen3", make<Decoder>});

}  // namespace
}  // namespace chorale::worker
