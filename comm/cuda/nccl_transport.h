// NCCL between the ranks of a group. Reached through the table of comm/device_transport.h; declared for tests, which
// bring a library of their own.
#pragma once

#include <memory>

#include "comm/cuda/nccl_library.h"
#include "comm/device_transport.h"

namespace chorale::comm {

/// `library` must outlive it.
std::unique_ptr<DeviceTransport> make_nccl_transport(const Nccl& library, const DeviceGroup& group);

}  // namespace chorale::comm
