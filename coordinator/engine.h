// The engine: one thread that owns jobs, scheduler and world. It admits jobs, asks the scheduler for steps, sends them,
// appends what comes back, detokenizes, checks stop conditions and feeds sinks. HTTP sessions, `generate` and benches
// are its callers.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "comm/base/deadline.h"
#include "comm/base/error.h"
#include "coordinator/engine_stats.h"
#include "coordinator/jobs/job.h"
#include "coordinator/jobs/text_stream.h"
#include "coordinator/schedule/policy.h"
#include "coordinator/world.h"

namespace chorale::coordinator {

class Tokenizer;

struct EngineOptions {
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  PrefixCaching prefix_caching = PrefixCaching::kOn;
  int max_waiting_jobs = 1024;  // more are answered 429
  int max_steps_in_flight = 0;  // 0: pp + 1, which hides the coordinator's latency
  std::chrono::milliseconds slow_reader_timeout{30000};
  std::chrono::milliseconds probe_interval{5000};  // an idle world is asked this often
  std::chrono::milliseconds health_window{30000};  // health() fails when nothing came back for this long
  /// Where a choice of this prompt gets its text from; none: the tokenizer. For tests.
  std::function<std::unique_ptr<TextStream>(std::span<const int32_t> prompt)> make_text;
  /// Hears each report of a stage, on the engine's thread. For benches.
  std::function<void(const parallel::StageReport& report)> on_stage_report;
};

/// Thread-safe but for construction and destruction.
class Engine {
 public:
  /// `tokenizer` may be null (model folder without one): texts are then empty and stop strings are refused.
  Engine(EngineOptions options, std::shared_ptr<const Tokenizer> tokenizer, std::unique_ptr<World> world);
  ~Engine();  // drains nothing: running jobs get on_error

  /// Failure{kResourceExhausted} when the queue is full, {kInvalidArgument} when prompt + max_tokens cannot fit,
  /// {kPeerLost} when the world is lost, {kUnsupported} while draining.
  Result<JobId> submit(JobRequest request, std::shared_ptr<JobSink> sink);
  /// The job ends at the next step; its sink hears nothing more. Unknown ids are ignored.
  void cancel(JobId id);
  /// A hint that a congested reader caught up: the engine looks at once instead of at its next look (20 ms).
  void wake();

  /// Refuses new jobs, lets running ones finish until the deadline, then fails the rest. Blocks.
  void drain(Deadline deadline);
  /// Healthy: a step completed recently, or the world answered a probe, and it is not draining. Else the reason.
  Result<std::string> health() const;
  EngineStats stats() const;
  const parallel::ClusterPlan& plan() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chorale::coordinator
