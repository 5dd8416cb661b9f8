// The ranks of a group over memory of a device: what layers and the stage runner exchange activations with when they
// compute on one. A transport moves the bytes (NCCL, or by way of the host); sums are added on the device, in the order
// of the tree (N3), so that they do not depend on it.
#pragma once

#include <memory>

#include "comm/device_transport.h"
#include "worker/ops/context.h"

namespace chorale::worker {

/// How tree_all_reduce adds: in the tree's order, or, for `--answer fast`, however the transport does.
enum class SumOrder : uint8_t { kTree, kAny };

/// `host` is the same group for host memory: barriers go through it. Over NCCL calls return when their work is queued:
/// memory may be reused in the order of op's stream. `transport`, `host` and `op`, which gives stream, scratch and the
/// kernel that adds, must outlive the result. It cannot be split.
std::unique_ptr<comm::Communicator> make_device_communicator(comm::Communicator& host, comm::DeviceTransport& transport,
                                                             OpContext& op, SumOrder order = SumOrder::kTree);

}  // namespace chorale::worker
