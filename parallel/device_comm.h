// What ranks on devices exchange activations over: NCCL, or MPI and shared memory by way of the host. Chosen once for a
// world by the coordinator, part of its ClusterPlan; the bits of an answer do not depend on it (N3).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace chorale::parallel {

struct WorkerHello;

enum class DeviceComm : uint8_t { kMpi, kNccl };
std::string_view to_string(DeviceComm comm);
/// Of --comm; nothing for "auto". Throws Error{kInvalidArgument} that lists the valid names.
std::optional<DeviceComm> device_comm_from_string(std::string_view name);

struct DeviceCommChoice {
  DeviceComm comm = DeviceComm::kMpi;
  std::string why_not_nccl;  // a line for the user, where one would have expected it
};

/// Takes NCCL where every rank has the same version of it and no two share a GPU, unless the user wants something else.
/// `hellos`: one a rank; of a single one nothing is asked, since it has nobody to talk to. Throws Error{kUnsupported}
/// with the reason where NCCL is wanted and a rank has none or another version; sharing is let through then, because
/// newer versions allow it.
DeviceCommChoice choose_device_comm(std::optional<DeviceComm> wanted, const std::vector<WorkerHello>& hellos);

}  // namespace chorale::parallel
