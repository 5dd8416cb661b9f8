// Measures what a communicator over memory of the host and a control link cost: latency and bandwidth over sizes, in
// the terms of nccl-tests (algbw = bytes / time; busbw = algbw x 2 (n-1) / n for an all-reduce, x 1 for send/recv).
// Called by `chorale bench comm` and by the results scripts.
#pragma once

#include <vector>

#include "comm/bench_rounds.h"

namespace chorale::comm {

/// Collective over `comm`. Rank 0 returns the rows (times of rank 0); the others return nothing. Throws Error like the
/// operations it measures, and Error{kCorrupt} when an all-reduce gave a wrong sum.
std::vector<CommBenchRow> measure_communicator(Communicator& comm, const CommBenchOptions& options);

/// Coordinator -> worker -> coordinator over loopback with `payload_bytes` each way, both ends in this process, idle
/// otherwise.
CommBenchRow measure_control_link(size_t payload_bytes, int iterations);

}  // namespace chorale::comm
