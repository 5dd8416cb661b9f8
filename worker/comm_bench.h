// `chorale bench comm` between ranks: each takes its device as a worker does, they choose what to talk over as a
// coordinator chooses for a world, and measure it. main() hands it to the command.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "comm/bench_rounds.h"
#include "comm/mpi_session.h"
#include "parallel/cluster_plan.h"
#include "worker/stage.h"

namespace chorale::worker {

struct CommBenchStart {
  std::optional<DeviceKind> device;          // nothing: the best of each rank's host
  std::optional<parallel::DeviceComm> comm;  // nothing: NCCL where all ranks can
  parallel::CudaGraphs graphs = parallel::CudaGraphs::kOn;
  std::vector<std::string> backends{""};  // for memory of the host (comm/world.h), each measured; with NCCL: one
  comm::CommBenchOptions rounds;
};

/// Collective over at least two ranks; rank 0 returns the rows, the others nothing. Throws what opening a device does;
/// on rank 0, for all, Error{kUnsupported} where NCCL is wanted and a rank cannot, Error{kInvalidArgument} where ranks
/// compute on devices of several kinds; and what measure_communicator and measure_device_comm throw.
std::vector<comm::CommBenchRow> bench_comm(const CommBenchStart& start, const comm::WorldMap& map,
                                           const WorldFactory& make_world);
std::vector<comm::CommBenchRow> bench_comm(const CommBenchStart& start, const comm::MpiSession& session);

}  // namespace chorale::worker
