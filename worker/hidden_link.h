// HiddenLink: how hidden rows get from a stage to the next. The stage runner receives what its layers start from and
// sends what they leave. Over NCCL both have streams and buffers of their own, so that rows travel while the next
// micro-batch is computed; the host waits for nothing.
#pragma once

#include <memory>

#include "parallel/cluster_plan.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"
#include "worker/stage_transports.h"

namespace chorale::worker {

/// Thread: the rank's compute thread.
class HiddenLink {
 public:
  virtual ~HiddenLink() = default;
  /// Fills `hidden` in the order of op's stream. REQUIRES: not the first stage; dense rows; as many as the other side
  /// sends.
  virtual void receive(MatrixView hidden, Deadline deadline) = 0;  // f32 [num_tokens, hidden_size]
  /// `hidden` may be reused in the order of op's stream. REQUIRES: not the last stage; dense rows.
  virtual void send(MatrixView hidden, Deadline deadline) = 0;  // f32 [num_tokens, hidden_size]
};

/// Between whom hidden rows travel.
struct HiddenEnds {
  int previous = -1;      // rank of the world that rows come from; of no use on the first stage
  int next = -1;          // that they go to; of no use on the last
  size_t most_bytes = 0;  // of one step
};
/// Of a rank in a plan's layout; room for the plan's largest step.
HiddenEnds hidden_ends(const parallel::ClusterPlan& plan, int rank);

/// By `transports` where there are such, else by `world`. All that it takes must outlive it. Over NCCL it has two
/// buffers for the largest step in each direction that the rank has.
std::unique_ptr<HiddenLink> make_hidden_link(const HiddenEnds& ends, comm::Communicator& world,
                                             const StageTransports& transports, const DeviceStream& where);

}  // namespace chorale::worker
