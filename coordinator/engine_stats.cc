#include "coordinator/engine_stats.h"

#include <algorithm>

namespace chorale::coordinator {
namespace {

// The bounds vLLM uses (vllm/v1/metrics/loggers.py), so that its dashboards fit.
constexpr double kFirstToken[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                                  1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
constexpr double kInterToken[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
                                  0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
constexpr double kRequest[] = {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
                               30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
constexpr double kStep[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0};
constexpr double kTokens[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};
constexpr double kChoices[] = {1, 2, 5, 10, 20};
constexpr double kIteration[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

}  // namespace

void Histogram::observe(double value) {
  const auto bucket = std::lower_bound(bounds.begin(), bounds.end(), value) - bounds.begin();
  ++counts[static_cast<size_t>(bucket)];
  sum += value;
  ++num_observations;
}

EngineStats::EngineStats()
    : time_to_first_token(kFirstToken),
      inter_token_latency(kInterToken),
      e2e_request_latency(kRequest),
      request_queue_time(kRequest),
      request_prefill_time(kRequest),
      request_decode_time(kRequest),
      request_inference_time(kRequest),
      step_time(kStep),
      request_prompt_tokens(kTokens),
      request_generation_tokens(kTokens),
      request_params_n(kChoices),
      request_params_max_tokens(kTokens),
      iteration_tokens(kIteration) {}

}  // namespace chorale::coordinator
