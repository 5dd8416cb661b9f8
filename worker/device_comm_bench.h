// Measures what ranks on devices exchange activations over: the stage's group and the hidden link as the stage runner
// has them, and NCCL's own all-reduce beside ours. Called by comm_bench.cc.
#pragma once

#include <vector>

#include "comm/bench_rounds.h"
#include "parallel/cluster_plan.h"
#include "worker/ops/context.h"

namespace chorale::worker {

struct DeviceCommBenchOptions {
  comm::CommBenchOptions rounds;
  parallel::DeviceComm comm = parallel::DeviceComm::kMpi;
  parallel::CudaGraphs graphs = parallel::CudaGraphs::kOn;  // also all-reduces as decode steps have them: over NCCL
  std::chrono::seconds deadline{60};                        // of a round
};

/// Collective over `world`, 2 to 16 ranks on devices of one kind. Rank 0 returns the rows, the others nothing:
///   all_reduce       the sum in the tree's order: all-gather and tree_fold over NCCL, or by way of the host
///   nccl_all_reduce  over NCCL: its own, in any order, of values as many
///   ..._graph        over NCCL: one of kBenchGraphOps in a row in a graph
///   all_gather       `bytes` are all ranks' parts together
///   send_recv        hidden rows from rank 0 to the last rank and back; half of it
/// Times are rank 0's device's: from one event in its stream to the next, while the host gives it work in advance where
/// the transport lets it. What each operation gave is looked at once: Error{kCorrupt} where it is wrong, sums but
/// NCCL's own by ==. Throws Error{kInvalidArgument} for more ranks, and what devices and transports throw; a peer that
/// is lost or late while they measure ends the process with code 3, as it ends a worker.
std::vector<comm::CommBenchRow> measure_device_comm(comm::Communicator& world, const DeviceStream& where,
                                                    const DeviceCommBenchOptions& options);
constexpr int kBenchGraphOps = 20;

}  // namespace chorale::worker
