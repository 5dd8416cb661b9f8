#include "coordinator/http/metrics.h"

#include <limits>
#include <utility>
#include <vector>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

namespace chorale::coordinator::http {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

class Families {
 public:
  explicit Families(Labels common) : common_(std::move(common)) {}

  ClientMetric& add(const std::string& name, const std::string& help, MetricType type, const Labels& labels = {}) {
    if (list_.empty() || list_.back().name != name) list_.push_back(MetricFamily{name, help, type, {}});
    ClientMetric& metric = list_.back().metric.emplace_back();
    metric.label = common_;
    metric.label.insert(metric.label.end(), labels.begin(), labels.end());
    return metric;
  }
  void gauge(const std::string& name, const std::string& help, double value, const Labels& labels = {}) {
    add(name, help, MetricType::Gauge, labels).gauge.value = value;
  }
  void counter(const std::string& name, const std::string& help, double value, const Labels& labels = {}) {
    add(name, help, MetricType::Counter, labels).counter.value = value;
  }
  void histogram(const std::string& name, const std::string& help, const Histogram& source) {
    auto& target = add(name, help, MetricType::Histogram).histogram;
    target.sample_count = source.num_observations;
    target.sample_sum = source.sum;
    uint64_t cumulative = 0;
    for (size_t i = 0; i < source.bounds.size(); ++i) {
      cumulative += source.counts[i];
      target.bucket.push_back({cumulative, source.bounds[i]});
    }
    target.bucket.push_back({source.num_observations, std::numeric_limits<double>::infinity()});
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(list_); }

 private:
  Labels common_;
  std::vector<MetricFamily> list_;
};

void add_engine_gauges_and_counters(Families& out, const EngineStats& s, const std::string& max_model_len) {
  out.gauge("vllm:num_requests_running", "Sequences that hold KV blocks.", s.num_requests_running);
  out.gauge("vllm:num_requests_waiting", "Sequences that wait for admission.", s.num_requests_waiting);
  out.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 is all.", s.kv_cache_usage);
  out.gauge("vllm:gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc.", s.kv_cache_usage);
  out.counter("vllm:prefix_cache_queries_total", "Tokens looked up in the prefix cache.",
              static_cast<double>(s.prefix_cache_queries));
  out.counter("vllm:prefix_cache_hits_total", "Tokens found in the prefix cache.",
              static_cast<double>(s.prefix_cache_hits));
  out.counter("vllm:num_preemptions_total", "Sequences preempted.", static_cast<double>(s.num_preemptions));
  out.counter("vllm:prompt_tokens_total", "Prompt tokens of admitted jobs.", static_cast<double>(s.prompt_tokens));
  out.counter("vllm:generation_tokens_total", "Generated tokens.", static_cast<double>(s.generation_tokens));
  const std::pair<const char*, uint64_t> reasons[] = {{"stop", s.finished_stop},
                                                      {"length", s.finished_length},
                                                      {"abort", s.finished_abort},
                                                      {"error", s.finished_error}};
  for (const auto& [reason, count] : reasons)
    out.counter("vllm:request_success_total", "Ended choices by reason.", static_cast<double>(count),
                {{"finished_reason", reason}});
  out.gauge(
      "vllm:cache_config_info", "The cache's configuration.", 1,
      {{"block_size", "16"}, {"num_kv_blocks", std::to_string(s.num_kv_blocks)}, {"max_model_len", max_model_len}});
}

void add_engine_histograms(Families& out, const EngineStats& s) {
  out.histogram("vllm:iteration_tokens_total", "Tokens of a step.", s.iteration_tokens);
  out.histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", s.time_to_first_token);
  out.histogram("vllm:inter_token_latency_seconds", "Between tokens of one sequence.", s.inter_token_latency);
  out.histogram("vllm:time_per_output_token_seconds", "Older name of vllm:inter_token_latency_seconds.",
                s.inter_token_latency);
  out.histogram("vllm:e2e_request_latency_seconds", "From arrival to the end.", s.e2e_request_latency);
  out.histogram("vllm:request_queue_time_seconds", "Waiting for admission.", s.request_queue_time);
  out.histogram("vllm:request_inference_time_seconds", "From admission to the end.", s.request_inference_time);
  out.histogram("vllm:request_prefill_time_seconds", "From admission to the first token.", s.request_prefill_time);
  out.histogram("vllm:request_decode_time_seconds", "From the first token to the last.", s.request_decode_time);
  out.histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", s.request_prompt_tokens);
  out.histogram("vllm:request_generation_tokens", "Generated tokens of a request.", s.request_generation_tokens);
  out.histogram("vllm:request_params_n", "Choices asked for.", s.request_params_n);
  out.histogram("vllm:request_params_max_tokens", "Most tokens asked for.", s.request_params_max_tokens);
  out.histogram("chorale:step_seconds", "From a step's submission to its result.", s.step_time);
}

void add_own_series(Families& out, const EngineStats& s) {
  out.gauge("chorale:kv_blocks", "KV blocks by state.", static_cast<double>(s.num_used_kv_blocks), {{"state", "used"}});
  out.gauge("chorale:kv_blocks", "", static_cast<double>(s.num_kv_blocks - s.num_used_kv_blocks), {{"state", "free"}});
  out.gauge("chorale:steps_in_flight", "Steps sent and not answered.", s.num_steps_in_flight);
  out.counter("chorale:steps_total", "Steps answered.", static_cast<double>(s.num_steps));
  out.counter("chorale:surplus_tokens_total", "Tokens sampled after their sequence had ended.",
              static_cast<double>(s.num_surplus_tokens));
  out.counter("chorale:rejected_queue_full_total", "Jobs refused because the queue was full.",
              static_cast<double>(s.rejected_queue_full));
  out.counter("chorale:world_seconds_total", "Wall time with a step in flight.", s.step_seconds);
  out.counter("chorale:coordinator_seconds_total", "Engine thread at work.", s.coordinator_seconds);
  out.counter("chorale:starved_seconds_total", "Wall time with work and no step in flight.", s.starved_seconds);
  using Member = double StageStats::*;
  const std::pair<const char*, Member> parts[] = {{"compute", &StageStats::compute_seconds},
                                                  {"comm", &StageStats::comm_seconds},
                                                  {"wait", &StageStats::wait_seconds}};
  for (const auto& [part, member] : parts)
    for (size_t stage = 0; stage < s.stages.size(); ++stage)
      out.counter(std::string("chorale:stage_") + part + "_seconds_total", "Time of a stage's leader, by what it did.",
                  s.stages[stage].*member, {{"stage", std::to_string(stage)}});
}

void add_http_series(Families& out, const HttpCounters& http) {
  out.gauge("chorale:http_connections", "Open connections.", static_cast<double>(http.open_connections));
  out.gauge("chorale:http_open_requests", "Requests read and not yet answered.",
            static_cast<double>(http.open_requests));
  out.counter("chorale:http_requests_total", "Requests answered.", static_cast<double>(http.requests));
  out.counter("chorale:http_errors_total", "Requests answered with an error.", static_cast<double>(http.errors_4xx),
              {{"status", "4xx"}});
  out.counter("chorale:http_errors_total", "", static_cast<double>(http.errors_5xx), {{"status", "5xx"}});
  out.counter("chorale:http_disconnects_total", "Clients that left before their answer was whole.",
              static_cast<double>(http.disconnects));
}

}  // namespace

std::string metrics_text(const EngineStats& stats, const HttpCounters& http, const std::string& model_name,
                         int64_t max_model_len) {
  Families families({{"model_name", model_name}});
  add_engine_gauges_and_counters(families, stats, std::to_string(max_model_len));
  add_engine_histograms(families, stats);
  add_own_series(families, stats);
  add_http_series(families, http);
  return families.text();
}

}  // namespace chorale::coordinator::http
