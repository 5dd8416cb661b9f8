// The group of a rank on a device: what layers add up over, as the coordinator chose it (NCCL, or the host), with all
// that has to live as long. Held by the stage runner and by the bench of communication, so that both go the same way.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "parallel/numerics.h"
#include "worker/ops/context.h"
#include "worker/stage_transports.h"

namespace chorale::worker {

/// Thread: the rank's compute thread. `host_group` is the stage's ranks over memory of the host and serves itself where
/// the rank computes there; it, `where` and `op` must outlive this.
struct DeviceGroups {
  DeviceGroups(comm::Communicator& host_group, StageTransports transports, parallel::Answer answer,
               const DeviceStream& where, OpContext& op);
  ~DeviceGroups();
  DeviceGroups(const DeviceGroups&) = delete;
  DeviceGroups& operator=(const DeviceGroups&) = delete;

  const StageTransports transports;
  std::unique_ptr<comm::DeviceTransport> staged;  // where there is none for the group
  Stream* const stream;
  std::unique_ptr<comm::Communicator> wrapped;
  comm::Communicator& group;  // for memory of the rank's device
};

}  // namespace chorale::worker
