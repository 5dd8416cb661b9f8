#include "parallel/device_comm.h"

#include <fmt/format.h>

#include "comm/base/error.h"
#include "parallel/cluster_plan.h"

namespace chorale::parallel {
namespace {

/// Why the ranks cannot talk over NCCL; empty where they can.
std::string find_obstacle(const std::vector<WorkerHello>& hellos) {
  const WorkerHello& first = hellos.front();
  for (const WorkerHello& hello : hellos) {
    if (hello.device == "cpu") return fmt::format("rank {} on {} computes on the CPU", hello.rank, hello.host);
    if (hello.nccl_version.empty()) return fmt::format("rank {} on {}: {}", hello.rank, hello.host, hello.nccl_problem);
    if (hello.nccl_version != first.nccl_version)
      return fmt::format("rank {} on {} has NCCL {}, rank {} on {} has {}", hello.rank, hello.host, hello.nccl_version,
                         first.rank, first.host, first.nccl_version);
  }
  return {};
}

/// Two ranks on one GPU, which NCCL refuses ("Duplicate GPU detected"): it looks at the PCI address, which the parts of
/// a GPU (MIG) have in common.
std::string find_shared_device(const std::vector<WorkerHello>& hellos) {
  const auto are_same = [](const std::string& a, const std::string& b) { return !a.empty() && a == b; };
  for (size_t i = 0; i < hellos.size(); ++i)
    for (size_t j = i + 1; j < hellos.size(); ++j) {
      const WorkerHello &a = hellos[i], &b = hellos[j];
      if (a.host != b.host) continue;
      if (are_same(a.device_identity, b.device_identity))
        return fmt::format("ranks {} and {} on {} share a GPU", a.rank, b.rank, a.host);
      if (are_same(a.device_bus_id, b.device_bus_id))
        return fmt::format("ranks {} and {} on {} have parts (MIG) of one GPU, {}, which NCCL takes for one", a.rank,
                           b.rank, a.host, a.device_bus_id);
    }
  return {};
}

}  // namespace

std::string_view to_string(DeviceComm comm) { return comm == DeviceComm::kNccl ? "nccl" : "mpi"; }

std::optional<DeviceComm> device_comm_from_string(std::string_view name) {
  if (name == "auto") return std::nullopt;
  for (DeviceComm comm : {DeviceComm::kMpi, DeviceComm::kNccl})
    if (to_string(comm) == name) return comm;
  fail(ErrorCode::kInvalidArgument, "--comm {}: one of auto, nccl, mpi", name);
}

DeviceCommChoice choose_device_comm(std::optional<DeviceComm> wanted, const std::vector<WorkerHello>& hellos) {
  if (hellos.size() == 1 || wanted == DeviceComm::kMpi) return {};  // nothing to exchange, or nothing to explain
  const std::string obstacle = find_obstacle(hellos);
  if (wanted == DeviceComm::kNccl && !obstacle.empty())
    fail(ErrorCode::kUnsupported, "--comm nccl: {} (--comm mpi does without it)", obstacle);
  if (wanted == DeviceComm::kNccl) return {DeviceComm::kNccl, ""};
  const std::string shared = find_shared_device(hellos);
  if (obstacle.empty() && shared.empty()) return {DeviceComm::kNccl, ""};
  if (hellos.front().device != "cuda" && !obstacle.empty()) return {};  // nobody expects NCCL there
  return {DeviceComm::kMpi,
          fmt::format("activations travel over MPI, by way of the host: {}", obstacle.empty() ? shared : obstacle)};
}

}  // namespace chorale::parallel
