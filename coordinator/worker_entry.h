// How commands of the coordinator's executable start a worker without including it: main() hands them this function.
#pragma once

#include <cstdint>
#include <string>

#include "comm/base/tensor.h"

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
  DeviceKind device = DeviceKind::kCpu;
  int threads = 0;               // 0: max(1, cores / ranks on the host)
  std::string record_path;       // write the plans it runs there; empty: no
};

/// Runs one rank until it is told to stop; returns the exit code. Thread: the process's main thread (MPI calls come from it).
using WorkerEntry = int (*)(const WorkerStart& start, comm::MpiSession& session);

}  // namespace chorale::coordinator
