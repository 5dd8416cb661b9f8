// A World of worker processes behind the control link: waits for them, decides the plan, waits until their weights are
// loaded, then carries plans and results. The engine owns it.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "comm/control_link.h"
#include "coordinator/hosted_world.h"
#include "coordinator/world.h"

namespace chorale::coordinator {

struct ClusterRequest;

class ControlWorld : public World {
 public:
  /// Starts `server`, waits for all ranks until `join_deadline`, sends them the plan and waits until all are ready.
  /// Throws Error: kDeadlineExceeded naming the ranks that did not join, kPeerLost with why one left, what
  /// make_cluster_plan throws. Workers that have joined are told to stop then.
  static std::unique_ptr<World> establish(std::unique_ptr<comm::ControlServer> server, const ClusterRequest& request,
                                          const parallel::ModelConfig& config, Deadline join_deadline,
                                          const GaveUp& gave_up);
  ~ControlWorld() override;  // tells the workers to stop

  const parallel::ClusterPlan& plan() const override { return plan_; }
  void submit(const parallel::StepPlan& plan) override;
  void take(std::vector<WorldEvent>& events, Deadline deadline) override;
  void wake() override;
  void stop(Deadline deadline) override;

 private:
  explicit ControlWorld(std::unique_ptr<comm::ControlServer> server);
  void form(const ClusterRequest& request, const parallel::ModelConfig& config, Deadline join_deadline,
            const GaveUp& gave_up);
  void await_hellos(std::vector<parallel::WorkerHello>& hellos, Deadline deadline, const GaveUp& gave_up);
  void await_ready(const std::vector<parallel::WorkerHello>& hellos, const GaveUp& gave_up);
  std::optional<comm::LinkEvent> next_event(Deadline deadline);
  void translate(comm::LinkEvent event, std::vector<WorldEvent>& events);

  std::unique_ptr<comm::ControlServer> server_;
  parallel::ClusterPlan plan_;
  bool lost_ = false;

  // Filled by the link's thread.
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<comm::LinkEvent> inbox_;  // guarded by mutex_
  bool woken_ = false;                 // guarded by mutex_
};

}  // namespace chorale::coordinator
