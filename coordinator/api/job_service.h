// What the API needs of the engine: jobs go in, they may be cancelled, health and counters come out. `Engine` stands
// behind it in the server (EngineJobService); tests put a scripted one here. It knows neither HTTP nor JSON.
#pragma once

#include <memory>
#include <string>

#include "comm/base/error.h"
#include "coordinator/engine_stats.h"
#include "coordinator/jobs/job.h"

namespace chorale::coordinator::api {

/// Thread-safe.
class JobService {
 public:
  virtual ~JobService() = default;
  /// As Engine::submit: kResourceExhausted (queue full), kInvalidArgument (cannot fit), kPeerLost, kUnsupported
  /// (draining).
  virtual Result<JobId> submit(JobRequest request, std::shared_ptr<JobSink> sink) = 0;
  /// The job ends at the next step; unknown ids are ignored.
  virtual void cancel(JobId id) = 0;
  /// A hint that a congested sink caught up.
  virtual void wake() = 0;
  /// A line about the world, or why it is not healthy.
  virtual Result<std::string> health() const = 0;
  virtual EngineStats stats() const = 0;
};

}  // namespace chorale::coordinator::api
