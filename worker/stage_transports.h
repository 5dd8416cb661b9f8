// What a rank on a device talks over: a transport for its stage's group and one each for the stages before and after,
// so that what enters, what leaves and what the group adds up never wait for each other. Made by Stage before the
// weights are read, given to the stage runner.
#pragma once

#include <memory>

#include "comm/device_transport.h"
#include "parallel/cluster_plan.h"

namespace chorale::worker {

struct StageTransports {
  std::unique_ptr<comm::DeviceTransport> group;     // the ranks of the stage, by tp index; nullptr for one
  std::unique_ptr<comm::DeviceTransport> previous;  // {the rank with this tp index one stage before, this rank}
  std::unique_ptr<comm::DeviceTransport> next;      // {this rank, that of the next stage}
  std::unique_ptr<comm::DeviceTransport> ids;       // {stage 0, the leader of the last}: of several stages
};

/// Collective over the world, where the plan says NCCL; else nothing. Each has done once what steps will ask of it
/// (transport_warm_up.h). Throws what DeviceTransportEntry::make throws.
StageTransports make_stage_transports(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world,
                                      const DeviceStream& where, Deadline deadline);

}  // namespace chorale::worker
