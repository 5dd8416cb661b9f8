// How checkpoints say which rotary embedding they were trained with, as a RopeConfig. Both spellings of
// config.json (rope_theta + rope_scaling, and rope_parameters), and GGUF metadata. Semantics are those of Hugging
// Face's modeling_rope_utils.
#pragma once

#include "worker/models/config_reader.h"

namespace chorale::worker {

/// Types default, linear, llama3 and yarn; others throw Error{kUnsupported} by name. REQUIRES: head_dim and
/// max_positions are set.
parallel::RopeConfig rope_from_hf(const JsonConfig& json, const parallel::ModelConfig& config);
/// rope.freq_base, rope.dimension_count, rope.scaling.*, and the tensor rope_freqs.weight (divides the frequencies).
parallel::RopeConfig rope_from_gguf(const GgufConfig& gguf, const parallel::ModelConfig& config);

}  // namespace chorale::worker
