// The ranks of a group over memory of a device: what layers and the stage runner exchange activations with when they
// compute on one. Bytes travel through pinned host memory and the communicator below it (MPI, shared memory); sums are
// added on the device, in the order of the tree (N3).
#pragma once

#include <memory>

#include "comm/base/device.h"
#include "comm/communicator.h"
#include "worker/ops/context.h"

namespace chorale::worker {

/// `host` takes host memory; the result takes memory of op's device. `op`, which must outlive it, gives stream, scratch
/// and the kernel that adds; `host` must too.
std::unique_ptr<comm::Communicator> make_device_communicator(comm::Communicator& host, Device& device, OpContext& op);

}  // namespace chorale::worker
