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
#include "coordinator/world_alarm.h"

namespace chorale::coordinator {

struct ClusterRequest;

class ControlWorld : public World {
 public:
  /// Starts `server`, waits for all ranks until `join_deadline`, sends them the plan and waits until all are ready. A
  /// worker that does not fit (its MPI world has another size) is refused and told why; one that joined and leaves
  /// before all are there is waited for again. Throws Error: kDeadlineExceeded naming the ranks that did not join,
  /// kPeerLost where one is lost or misses others while it loads, kSystem where one cannot load, what make_cluster_plan
  /// throws. Workers that have joined are told to stop then.
  /// `alarm` may be null; where it rings, the world is lost at once.
  static std::unique_ptr<World> establish(std::unique_ptr<comm::ControlServer> server, const ClusterRequest& request,
                                          const parallel::ModelConfig& config, Deadline join_deadline,
                                          const Forming& forming, std::shared_ptr<WorldAlarm> alarm = nullptr);
  ~ControlWorld() override;  // tells the workers to stop

  const parallel::ClusterPlan& plan() const override { return plan_; }
  void submit(const parallel::StepPlan& plan) override;
  void take(std::vector<WorldEvent>& events, Deadline deadline) override;
  void wake() override;
  void stop(Deadline deadline) override;

 private:
  ControlWorld(std::unique_ptr<comm::ControlServer> server, const ClusterRequest& request,
               std::shared_ptr<WorldAlarm> alarm);
  void form(const ClusterRequest& request, const parallel::ModelConfig& config, Deadline join_deadline,
            const Forming& forming);
  void await_hellos(std::vector<parallel::WorkerHello>& hellos, Deadline deadline, const Forming& forming);
  void await_ready(const std::vector<parallel::WorkerHello>& hellos, const Forming& forming);
  bool deliver(comm::LinkEvent event);
  std::optional<comm::LinkEvent> next_event(Deadline deadline);
  void lose(const std::string& reason, std::vector<WorldEvent>& events);
  void translate(comm::LinkEvent event, std::vector<WorldEvent>& events);

  std::unique_ptr<comm::ControlServer> server_;
  const std::shared_ptr<WorldAlarm> alarm_;
  parallel::ClusterPlan plan_;
  bool lost_ = false;

  // Filled by the link's thread.
  std::mutex mutex_;  // guards what follows
  std::condition_variable arrived_;
  std::deque<comm::LinkEvent> inbox_;
  size_t inbox_bytes_ = 0;  // of payloads
  std::optional<std::string> alarmed_;
  bool woken_ = false;
};

}  // namespace chorale::coordinator
