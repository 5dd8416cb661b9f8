// Stage: everything one rank holds while its world lives: communicators, compute threads, and the runner with weights
// and KV cache. Made from a ClusterPlan by the control loop and by replays; collective over the world.
#pragma once

#include <exception>
#include <functional>
#include <memory>

#include "comm/communicator.h"
#include "comm/world.h"
#include "parallel/cluster_plan.h"
#include "worker/runner.h"
#include "worker/thread_pool.h"

namespace chorale::worker {

/// Makes the communicator of all ranks; collective.
using WorldFactory = std::function<std::unique_ptr<comm::Communicator>(const comm::WorldOptions& options)>;

class Stage {
 public:
  using OnFailure = std::function<void(const std::exception& error)>;

  /// `threads`: compute threads, 0 for the plan's. Opens the plan's checkpoint, checks that it is the one that was
  /// planned, loads this rank's slices. Throws Error: kInvalidArgument (another model, another world size),
  /// kUnsupported (instruction set, device), and what loading throws.
  /// `device`: opened by the caller; nullptr is the CPU. `on_failure` hears what is going to be thrown before this
  /// rank's end of the world goes, which others take for a lost peer and tell as such.
  Stage(const parallel::ClusterPlan& plan, int rank, int threads, std::unique_ptr<Device> device,
        const WorldFactory& make_world, const OnFailure& on_failure = {});

  StageRunner& runner() { return *runner_; }
  parallel::WorkerReady ready() const;
  comm::Communicator& world() { return *world_; }

 private:
  void load(const parallel::ClusterPlan& plan, int rank, int threads, const WorldFactory& make_world);

  std::unique_ptr<Device> device_;  // nullptr: the CPU
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<comm::Communicator> world_;
  std::unique_ptr<comm::Communicator> group_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<StageRunner> runner_;
};

}  // namespace chorale::worker
