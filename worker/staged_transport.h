// Device memory between ranks by way of the host: through pinned memory and a communicator for host memory (shared
// memory, MPI). What ranks on a device use where NCCL does not serve; slower, since the host waits for the device
// before bytes leave.
#pragma once

#include <memory>

#include "comm/device_transport.h"

namespace chorale::worker {

/// `host` and `device` must outlive it. Its calls wait for the stream, by their deadline.
std::unique_ptr<comm::DeviceTransport> make_staged_transport(comm::Communicator& host, Device& device);

}  // namespace chorale::worker
