// Counters, gauges and histograms of the engine since its start, as one copyable snapshot. The engine fills it;
// /metrics and benches read it. Names and bucket bounds follow vLLM's metrics where it has them; no exposition format
// is known here.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace chorale::coordinator {

/// Raw (not cumulative) bucket counts; counts has one entry more than bounds, for values above the last bound.
struct Histogram {
  Histogram() = default;
  explicit Histogram(std::span<const double> upper_bounds)
      : bounds(upper_bounds.begin(), upper_bounds.end()), counts(upper_bounds.size() + 1) {}
  void observe(double value);

  std::vector<double> bounds;  // ascending; a value v is in the first bucket with v <= bound
  std::vector<uint64_t> counts;
  double sum = 0;
  uint64_t num_observations = 0;
};

/// Sums of the stage's reports: for metrics and benches, never for decisions.
struct StageStats {
  double compute_seconds = 0;
  double comm_seconds = 0;
  double wait_seconds = 0;
  uint64_t num_reports = 0;
};

struct EngineStats {
  EngineStats();

  // Gauges.
  int num_requests_running = 0;  // sequences that hold KV blocks
  int num_requests_waiting = 0;  // sequences that wait for their first or next admission
  double kv_cache_usage = 0;     // share of KV blocks that sequences use, 0..1
  int64_t num_kv_blocks = 0;
  int64_t num_used_kv_blocks = 0;
  int num_steps_in_flight = 0;

  // Counters.
  uint64_t prompt_tokens = 0;
  uint64_t generation_tokens = 0;
  uint64_t prefix_cache_queries = 0;  // tokens looked up
  uint64_t prefix_cache_hits = 0;     // tokens found
  uint64_t num_preemptions = 0;
  uint64_t finished_stop = 0;  // choices, by reason
  uint64_t finished_length = 0;
  uint64_t finished_abort = 0;  // cancelled by the caller
  uint64_t finished_error = 0;  // deadline, slow reader, world lost
  uint64_t rejected_queue_full = 0;
  uint64_t num_steps = 0;
  uint64_t last_step = 0;           // the number of the last one answered, probes of an idle world included
  uint64_t num_surplus_tokens = 0;  // sampled after their sequence had ended
  double step_seconds = 0;         // wall time with a step in flight: from sending (or the result before) to the result
  double coordinator_seconds = 0;  // engine thread at work, not waiting
  double starved_seconds = 0;      // wall time with sequences to run and no step in flight
  std::vector<StageStats> stages;  // [pp]

  // Histograms, seconds unless said otherwise.
  Histogram time_to_first_token;
  Histogram inter_token_latency;
  Histogram e2e_request_latency;
  Histogram request_queue_time;
  Histogram request_prefill_time;
  Histogram request_decode_time;
  Histogram request_inference_time;
  Histogram step_time;
  Histogram request_prompt_tokens;      // tokens
  Histogram request_generation_tokens;  // tokens
  Histogram request_params_n;           // choices
  Histogram request_params_max_tokens;  // tokens
  Histogram iteration_tokens;           // tokens of a step
};

}  // namespace chorale::coordinator
