// The coordinator's view of one MPI world: plans go in, results come out, and it may be lost. The engine owns one at a
// time; when a world is lost a later one may take its place under running jobs (architecture.md section 2).
// Implementations: over the control link (coordinator/control_world.h), and a scripted one for tests.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "comm/base/deadline.h"
#include "parallel/cluster_plan.h"
#include "parallel/step_plan.h"

namespace chorale::coordinator {

struct WorldLost {
  std::string reason;
};
using WorldEvent = std::variant<parallel::StepResult, parallel::StageReport, WorldLost>;

/// Thread: submit and take from the engine thread only; wake from any.
class World {
 public:
  virtual ~World() = default;
  virtual const parallel::ClusterPlan& plan() const = 0;
  /// Sends the plan to every worker. Never blocks for the result. After a loss it does nothing.
  virtual void submit(const parallel::StepPlan& plan) = 0;
  /// Appends what has arrived to `events`; blocks until there is something, `wake` was called, or the deadline.
  virtual void take(std::vector<WorldEvent>& events, Deadline deadline) = 0;
  /// Makes a blocked `take` return (a job was submitted or cancelled).
  virtual void wake() = 0;
  /// Asks all workers to finish and exit; waits until they have left or the deadline.
  virtual void stop(Deadline deadline) = 0;
};

}  // namespace chorale::coordinator
