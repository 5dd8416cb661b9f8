// What Llama and its relatives (Mistral, Qwen2, Qwen3) have in common: config.json keys, GGUF metadata keys, and the
// weight table in both spellings. Model files add what is theirs. GPT-2 shares nothing but the helpers of
// config_reader.h.
#pragma once

#include <optional>
#include <vector>

#include "parallel/architecture.h"
#include "worker/models/config_reader.h"

namespace chorale::worker {

/// What Hugging Face's configuration class takes for a key that config.json does not have.
struct DecoderDefaults {
  int num_kv_heads = 0;  // 0: as many as query heads
  int head_dim = 0;      // 0: hidden_size / num_attention_heads
  int64_t max_positions = 2048;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

/// Sizes, heads, norm, rope, activation (silu only) and special ids. Biases and windows are left to the model file.
parallel::ModelConfig decoder_from_hf(const JsonConfig& json, const DecoderDefaults& defaults);
parallel::ModelConfig decoder_from_gguf(const GgufConfig& gguf);

/// Qwen2's and Qwen3's keys for sliding windows: the window where all layers have it, 0 where none has; a mixture
/// throws Error{kUnsupported} naming the key.
int64_t uniform_window(const JsonConfig& json, const parallel::ModelConfig& config);

/// The table that follows from the config: biases, q and k norms as it says. `gguf_qk_order`: how GGUF files of this
/// architecture store the rows of wq and wk.
std::vector<parallel::WeightSpec> decoder_weights(const parallel::ModelConfig& config,
                                                  parallel::RowOrder gguf_qk_order);

}  // namespace chorale::worker
