// How checkpoints say which rotary embedding they were trained with, and the frequencies that follow. Both spellings of
// config.json (rope_theta + rope_scaling, and rope_parameters), and GGUF metadata. Semantics are those of Hugging
// Face's modeling_rope_utils.
#pragma once

#include <vector>

#include "worker/models/config_reader.h"

namespace chorale::worker {

/// Types default, linear, llama3 and yarn; others throw Error{kUnsupported} by name. REQUIRES: head_dim and
/// max_positions are set.
parallel::RopeConfig rope_from_hf(const JsonConfig& json, const parallel::ModelConfig& config);
/// rope.freq_base, rope.dimension_count, rope.scaling.*, and the tensor rope_freqs.weight (divides the frequencies).
parallel::RopeConfig rope_from_gguf(const GgufConfig& gguf, const parallel::ModelConfig& config);

struct RopeFrequencies {
  std::vector<double> inv_freq;   // [rotary_dim / 2] radians a token
  double attention_factor = 1.0;  // multiplies cos and sin
};
/// float64 throughout, by the same operations on every machine (no libm, N4).
RopeFrequencies rope_frequencies(const parallel::RopeConfig& rope);

/// x^y for x > 0, relative error below 1e-14; additions, products and quotients only.
double pow_f64(double x, double y);
/// Natural logarithm for x > 0, likewise.
double log_f64(double x);

}  // namespace chorale::worker
