// What a rank on a device talks over: a transport for its stage's group and one each for the stages before and after,
// so that what enters, what leaves and what the group adds up never wait for each other. Made by Stage before the
// weights are read, given to the stage runner.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/device_transport.h"
#include "parallel/cluster_plan.h"

namespace chorale::worker {

struct StageTransports {
  std::unique_ptr<comm::DeviceTransport> group;     // the ranks of the stage, by tp index; nullptr for one
  std::unique_ptr<comm::DeviceTransport> previous;  // {the rank with this tp index one stage before, this rank}
  std::unique_ptr<comm::DeviceTransport> next;      // {this rank, that of the next stage}
  std::unique_ptr<comm::DeviceTransport> ids;       // {stage 0, the leader of the last}: of several stages
};

/// What a transport is for, which decides how much of the device it may take.
enum class TransportUse : uint8_t { kGroup, kLink, kIds };

/// One transport over NCCL between `members`, ranks of `world` in the transport's order; `label` is for messages.
/// Collective over them. Throws what DeviceTransportEntry::make throws, and Error{kUnsupported} where this rank has no
/// NCCL.
std::unique_ptr<comm::DeviceTransport> make_stage_transport(comm::Communicator& world, std::vector<int> members,
                                                            std::string label, TransportUse use,
                                                            const DeviceStream& where, Deadline deadline);

/// Collective over the world, where the plan says NCCL; else nothing. Each has done once what steps will ask of it
/// (transport_warm_up.h). Throws what DeviceTransportEntry::make throws.
StageTransports make_stage_transports(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world,
                                      const DeviceStream& where, Deadline deadline);

}  // namespace chorale::worker
