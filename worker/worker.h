// A worker: one rank of a world, from its first word to the coordinator to its exit. The `worker` command and the
// commands that host a coordinator call it on the process's main thread. It decides nothing: all it does is in the
// plans it receives.
#pragma once

#include <cstdint>
#include <string>

#include "comm/mpi_session.h"
#include "worker/comm_bench.h"
#include "worker/device_probe.h"
#include "worker/machine_probe.h"
#include "worker/stage.h"

namespace chorale::worker {

struct WorkerOptions {
  std::string control_host = "127.0.0.1";
  int control_port = 0;
  std::string secret;
  uint64_t epoch = 0;                                   // 0: the coordinator's
  std::optional<DeviceKind> device = DeviceKind::kCpu;  // none: the best of the host
  std::optional<parallel::DeviceComm> comm;             // kMpi: it does not look for NCCL
  int threads = 0;                                      // compute threads; 0: as the plan says
  std::string record_path;                              // rank 0 writes the plans it runs there; empty: no
  bool looks_for_cublaslt = false;                      // and tells the coordinator its version
  bool hosts_coordinator = false;                       // in this process: see run_worker
  std::chrono::seconds connect_deadline{120};
};

/// Joins the coordinator, loads what the cluster plan gives this rank, then runs step plans until it is told to stop:
/// returns 0. Before the first step a failure is reported to the coordinator and thrown. From then on a lost link, a
/// lost peer or a step past its deadline ends the process with code 3 and one line, which the coordinator says where it
/// can be told: half-done collectives cannot be taken back. Where this process hosts the coordinator, such a failure is
/// thrown once it is reported, so that the coordinator can say it before the process ends.
int run_worker(const WorkerOptions& options, const comm::WorldMap& map, const WorldFactory& make_world);
int run_worker(const WorkerOptions& options, const comm::MpiSession& session);

/// Runs the plans of a recording (worker/plan_recording.h) without a coordinator. Prints the sampled tokens of each
/// step, one line a token, to standard output on the last stage's leader. Returns 0. Throws Error; of a recording that
/// ends inside a step only after the steps before it.
int replay_worker(const std::string& recording_path, const WorkerOptions& options, const comm::WorldMap& map,
                  const WorldFactory& make_world);
int replay_worker(const std::string& recording_path, const WorkerOptions& options, const comm::MpiSession& session);

}  // namespace chorale::worker
