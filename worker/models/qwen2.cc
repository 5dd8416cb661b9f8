// Qwen2 and Qwen2.5 (arXiv:2407.10671): Llama's block with biases on q, k and v.
#include <nlohmann/json.hpp>

#include "worker/models/decoder.h"
#include "worker/models/decoder_config.h"

namespace chorale::worker {
namespace {
using parallel::ModelConfig;

ModelConfig config_from_hf(const nlohmann::json& object) {
  const JsonConfig json(object, "config.json");
  ModelConfig config = decoder_from_hf(json, {.num_kv_heads = 32, .max_positions = 32768});
  config.attention_bias = parallel::Presence::kPresent;
  config.sliding_window = uniform_window(json, config);
  return config;
}

ModelConfig config_from_gguf(const parallel::GgufFile& file) {
  ModelConfig config = decoder_from_gguf(GgufConfig(file));
  config.attention_bias = parallel::Presence::kPresent;
  return config;
}

std::vector<parallel::WeightSpec> weights(const ModelConfig& config) {
  return decoder_weights(config, parallel::RowOrder::kPlain);
}

const parallel::ArchitectureRegistry::Add kAddArchitecture({"qwen2",
                                                            {"qwen2"},
                                                            {"qwen2"},
                                                            config_from_hf,
                                                            config_from_gguf,
                                                            weights,
                                                            {".rotary_emb.inv_freq", "rope_freqs.weight"}});
const ModelRegistry::Add kAddModel({"qwen2", make<Decoder>});

}  // namespace
}  // namespace chorale::worker
