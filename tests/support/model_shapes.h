// Shapes of real decoders, for tests that plan, cut or count but compute nothing. What a test needs beyond (class, ids,
// stored type) it sets itself.
#pragma once

#include "parallel/model_config.h"

namespace chorale::test {

/// SmolLM2-135M: 9 heads and 3 KV heads, so that most tp split unevenly.
inline parallel::ModelConfig smollm2_config() {
  parallel::ModelConfig config{.architecture = "llama",
                               .vocab_size = 49152,
                               .hidden_size = 576,
                               .intermediate_size = 1536,
                               .num_layers = 30,
                               .num_heads = 9,
                               .num_kv_heads = 3,
                               .head_dim = 64,
                               .max_positions = 8192};
  config.rope.rotary_dim = config.head_dim;
  return config;
}

/// TinyLlama-1.1B.
inline parallel::ModelConfig llama_1_1b_config() {
  parallel::ModelConfig config{.architecture = "llama",
                               .vocab_size = 32000,
                               .hidden_size = 2048,
                               .intermediate_size = 5632,
                               .num_layers = 22,
                               .num_heads = 32,
                               .num_kv_heads = 4,
                               .head_dim = 64,
                               .max_positions = 2048};
  config.rope.rotary_dim = config.head_dim;
  return config;
}

}  // namespace chorale::test
