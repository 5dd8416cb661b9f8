// How a rank begins: the device that it takes, and what it says of itself and that device before anybody has planned a
// world. Called by the control loop and by the bench of communication.
#pragma once

#include <memory>
#include <optional>

#include "comm/base/device.h"
#include "comm/mpi_session.h"
#include "parallel/cluster_plan.h"

namespace chorale::worker {

/// The rank's device: its host's devices in turn. nullptr: the CPU. `wanted`: nothing for the best of the host. Throws
/// what open_device does.
std::unique_ptr<Device> open_own_device(std::optional<DeviceKind> wanted, const comm::WorldMap& map);

/// Libraries of GPUs whose versions the hello shall name: to open one takes time.
struct WantedLibraries {
  bool cublaslt = false;
  bool nccl = false;  // of several ranks only
};
/// Of a rank whose open_own_device(wanted, map) gave `device`.
parallel::WorkerHello make_hello(const comm::WorldMap& map, std::optional<DeviceKind> wanted, const Device* device,
                                 const WantedLibraries& libraries);

}  // namespace chorale::worker
