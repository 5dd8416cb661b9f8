// The text of /metrics: the engine's snapshot and the server's own counters as Prometheus families, named as vLLM names
// them
// (`vllm:`), and what only this project has (`chorale:`). Serialised by prometheus-cpp.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "coordinator/engine_stats.h"

namespace chorale::coordinator::http {

/// Written by the server's threads, read by anyone.
struct HttpCounters {
  std::atomic<int64_t> open_connections{0};
  std::atomic<int64_t> open_requests{0};
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> errors_4xx{0};
  std::atomic<uint64_t> errors_5xx{0};
  std::atomic<uint64_t> disconnects{0};  // clients that left before their answer was whole
};

std::string metrics_text(const EngineStats& stats, const HttpCounters& http, const std::string& model_name,
                         int64_t max_model_len);

}  // namespace chorale::coordinator::http
