// The rotary frequencies that a RopeConfig means: default, linear, llama3 and YaRN stretching as Hugging Face computes
// them. Called once a model; the table of cos and sin is worker/ops/rope.h's.
#pragma once

#include <vector>

#include "parallel/model_config.h"

namespace chorale::worker {

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

/// YaRN's attention factor: 0.1 m ln(factor) + 1 (arXiv:2309.00071, section 3.4); 1 for factors up to 1.
double yarn_mscale(double factor, double m = 1.0);

}  // namespace chorale::worker
