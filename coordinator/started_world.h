// A world of worker processes beside the coordinator's own: started by it with mpirun (the second way to start,
// architecture.md section 2), or elsewhere by somebody else (the third). A lost world is not replaced yet.
#pragma once

#include <chrono>
#include <string>

#include "coordinator/hosted_world.h"

namespace chorale::coordinator {

enum class WorldStart : uint8_t { kMpirun, kAwaitWorkers };

struct StartedWorldOptions {
  WorldStart start = WorldStart::kMpirun;
  std::string hostfile;     // Open MPI's; empty: this host
  std::string secret_file;  // empty: CHORALE_SECRET; without both a fresh secret (kMpirun only)
  std::chrono::seconds start_timeout{120};
};

/// Starts or awaits tp x pp workers, runs `coordinate` with their world on this thread, ends what is left of them.
/// Throws Error naming the ranks that did not come, or mpirun's exit code when it ended first. A world whose mpirun
/// ends later is lost at once.
int run_started(const StartedWorldOptions& options, const ClusterRequest& request, const Coordinate& coordinate,
                const Forming& forming);

/// An address of this host that other hosts can reach: of the first interface that is up and not loopback; "127.0.0.1"
/// where there is none.
std::string address_for_others();

}  // namespace chorale::coordinator
