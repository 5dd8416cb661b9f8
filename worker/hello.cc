#include "worker/hello.h"

#include <unistd.h>

#include "comm/base/version.h"
#include "comm/cuda/cublaslt_library.h"
#include "comm/cuda/nccl_library.h"
#include "parallel/host_facts.h"

namespace chorale::worker {
namespace {

void look_for_nccl(parallel::WorkerHello& hello, DeviceKind kind, bool is_wanted) {
  if (!is_wanted) {
    hello.nccl_problem = "this rank was started with --comm mpi";
    return;
  }
  hello.nccl_version = nccl_version(kind);
  hello.nccl_problem = nccl_problem(kind);
}

}  // namespace

std::unique_ptr<Device> open_own_device(std::optional<DeviceKind> wanted, const comm::WorldMap& map) {
  const DeviceKind kind = wanted.value_or(best_device());
  return kind == DeviceKind::kCpu ? nullptr : open_device(kind, map.local_rank());
}

parallel::WorkerHello make_hello(const comm::WorldMap& map, std::optional<DeviceKind> wanted, const Device* device,
                                 const WantedLibraries& libraries) {
  const parallel::HostFacts facts = parallel::read_host_facts();
  parallel::WorkerHello hello{.rank = map.rank,
                              .num_ranks = map.size,
                              .host = facts.host_name,
                              .ranks_on_host = map.ranks_on_host(),
                              .num_cores = facts.num_cores,
                              .free_memory_bytes = facts.free_memory_bytes,
                              .best_isa_f32 = parallel::best_isa(DType::kF32),
                              .best_isa_bf16 = parallel::best_isa(DType::kBF16),
                              .cpu_model = parallel::cpu_model_name(),
                              .build_id = kBuildId,
                              .process_id = getpid()};
  if (!wanted && device == nullptr) {
    const DeviceSurvey survey = survey_of_gpus();
    hello.gpu_absence = survey.absence;
    hello.gpu_problem = fmt::format("{}; {}", survey.problem, survey.advice);
  }
  if (device == nullptr) return hello;
  hello.device = to_string(device->kind());
  hello.device_arithmetic = device->arithmetic();
  hello.device_name = device->name();
  if (libraries.cublaslt) {
    hello.cublaslt_version = cublaslt_version(device->kind());
    hello.cublaslt_problem = cublaslt_problem(device->kind());
  }
  if (map.size > 1) look_for_nccl(hello, device->kind(), libraries.nccl);
  if (device->kind() == DeviceKind::kCuda) hello.device_free_bytes = device->memory().free_bytes;
  hello.device_identity = device->identity();
  hello.device_bus_id = device->bus_id();
  return hello;
}

}  // namespace chorale::worker
