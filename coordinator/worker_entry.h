// How commands of the coordinator's executable start a worker without including it: main() hands them this function.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "comm/base/tensor.h"
#include "comm/bench_rounds.h"
#include "parallel/cluster_plan.h"
#include "parallel/numerics.h"

namespace chorale::comm {
class MpiSession;
}

namespace chorale::coordinator {

/// Where a worker finds its coordinator, and how it should run.
struct WorkerStart {
  std::string control_host;
  uint16_t control_port = 0;
  std::string secret;
  uint64_t epoch = 0;
  std::optional<DeviceKind> device;          // none: the best of its host
  std::optional<parallel::DeviceComm> comm;  // kMpi: it does not look for NCCL
  int threads = 0;                           // 0: max(1, cores / ranks on the host)
  std::string record_path;                   // write the plans it runs there; empty: no
  bool hosts_coordinator = false;            // in this process
  bool looks_for_cublaslt = false;           // where --gemm or --answer asks for it: opening it takes time
};

/// What this machine reaches, measured: the yardsticks of `chorale bench`.
struct MachineSpeed {
  double read_gbps = 0;      // sequential read of memory far larger than the caches
  double f32_peak_gops = 0;  // multiply-adds of the numerics class, counted as two operations
  double bf16_peak_gops = 0;
};

/// What a device reaches, measured: worker/device_probe.h.
struct DeviceSpeed {
  double copy_gbps = 0;  // bytes read and written
  double bf16_gops = 0;  // of a large matrix product
  std::string bf16_by;   // "cublaslt-13.1.0", "own"
};

/// What `chorale bench comm` measures between ranks.
struct CommBenchStart {
  std::optional<DeviceKind> device;  // none: the best of each rank's host
  std::optional<parallel::DeviceComm> comm;
  parallel::CudaGraphs graphs = parallel::CudaGraphs::kOn;
  std::vector<std::string> backends{""};  // for memory of the host; "": the world's own choice
  comm::CommBenchOptions rounds;
};

/// The functions that main() passes to commands.
struct WorkerModule {
  /// Runs one rank until it is told to stop; returns the exit code. Thread: the process's main thread (MPI calls come
  /// from it).
  int (*run)(const WorkerStart& start, const comm::MpiSession& session);
  /// Runs the plans that a worker recorded, without a coordinator.
  int (*replay)(const std::string& recording_path, const WorkerStart& start, const comm::MpiSession& session);
  MachineSpeed (*measure_machine)(int threads, parallel::Isa isa);
  /// Of this host's device `index`; takes some of its memory for some milliseconds. Throws Error.
  DeviceSpeed (*measure_device)(DeviceKind kind, int index);
  /// Collective over the session's ranks, at least two. Rows on rank 0 only.
  std::vector<comm::CommBenchRow> (*bench_comm)(const CommBenchStart& start, const comm::MpiSession& session);
};

}  // namespace chorale::coordinator
