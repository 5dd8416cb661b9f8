// Predicts how long a step may take, from the model's size and then from the steps so far, to give each plan its
// deadline. The engine asks. Only a hung world ever meets a deadline; whether ranks are alive is the heartbeat's
// business. It reads no clock: times are handed in.
#pragma once

#include <cstdint>

#include "parallel/model_config.h"

namespace chorale::coordinator {

class StepClock {
 public:
  explicit StepClock(const parallel::ModelConfig& config);
  void observe(int num_tokens, double seconds);
  /// Seconds that a step of `num_tokens` is expected to take, at the slow end.
  double predict(int num_tokens) const;
  /// Ten times the prediction for the step and the `steps_ahead` before it, at least 30 s.
  uint32_t deadline_ms(int num_tokens, int steps_ahead) const;

 private:
  double longest_seconds_ = 0;  // of recent steps
  double seconds_per_token_;    // of recent large steps; before any: from the number of weights
  bool has_seen_large_step_ = false;
};

}  // namespace chorale::coordinator
