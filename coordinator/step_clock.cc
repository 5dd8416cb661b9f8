#include "coordinator/step_clock.h"

#include <algorithm>

namespace chorale::coordinator {
namespace {

constexpr int kLargeStep = 64;         // tokens; below, a step's time is that of reading the weights
constexpr double kSlowMachine = 20e9;  // multiply-adds count two; operations a second of a slow core
constexpr double kForget = 0.99;       // a step
constexpr double kMargin = 10;
constexpr double kShortestDeadline = 30;    // s
constexpr double kLongestDeadline = 86400;  // s

double num_weights(const parallel::ModelConfig& config) {
  const double hidden = static_cast<double>(config.hidden_size);
  const double heads = static_cast<double>(config.head_dim) * (2.0 * config.num_heads + 2.0 * config.num_kv_heads);
  return config.num_layers * hidden * (heads + 3.0 * static_cast<double>(config.intermediate_size)) +
         static_cast<double>(config.vocab_size) * hidden;
}

}  // namespace

StepClock::StepClock(const parallel::ModelConfig& config)
    : seconds_per_token_(2 * num_weights(config) / kSlowMachine) {}

void StepClock::observe(int num_tokens, double seconds) {
  longest_seconds_ = std::max(seconds, longest_seconds_ * kForget);
  if (num_tokens < kLargeStep) return;
  const double per_token = seconds / num_tokens;
  seconds_per_token_ = has_seen_large_step_ ? std::max(per_token, seconds_per_token_ * kForget) : per_token;
  has_seen_large_step_ = true;
}

double StepClock::predict(int num_tokens) const { return std::max(longest_seconds_, seconds_per_token_ * num_tokens); }

uint32_t StepClock::deadline_ms(int num_tokens, int steps_ahead) const {
  const double seconds = kMargin * predict(num_tokens) * (1 + steps_ahead);
  return static_cast<uint32_t>(1000 * std::clamp(seconds, kShortestDeadline, kLongestDeadline));
}

}  // namespace chorale::coordinator
