// Measures what a communicator and a control link cost: latency and bandwidth over sizes, in the terms of nccl-tests
// (algbw = bytes / time; busbw = algbw x 2 (n-1) / n for an all-reduce, x 1 for send/recv). Called by `chorale bench
// comm` and by the results scripts.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace chorale::comm {

struct CommBenchRow {
  std::string test;  // "all_reduce", "send_recv" (half a round trip), "control_round_trip"
  std::string backend;
  int ranks = 0;
  size_t bytes = 0;
  int num_samples = 0;
  double p50_us = 0;
  double p99_us = 0;
  double mean_us = 0;
  double algbw_gbps = 0;  // 1e9 bytes a second, from the mean
  double busbw_gbps = 0;
};

struct CommBenchOptions {
  std::vector<size_t> sizes{8 << 10, 64 << 10,
                            1 << 20};  // bytes of one message or of one rank's partial sums; multiples of 4
  int warmup = 50;
  int iterations = 1000;          // of sizes up to 64 KiB; larger ones run proportionally fewer, at least 20
  double seconds_per_size = 5.0;  // an upper bound
};

/// Collective over `comm`. Rank 0 returns the rows (times of rank 0); the others return nothing. The tree of the
/// all-reduce has one leaf per rank. Throws Error like the operations it measures, and Error{kCorrupt} when an
/// all-reduce gave a wrong sum.
std::vector<CommBenchRow> measure_communicator(Communicator& comm, const CommBenchOptions& options);

/// Coordinator -> worker -> coordinator over loopback with `payload_bytes` each way, both ends in this process, idle
/// otherwise.
CommBenchRow measure_control_link(size_t payload_bytes, int iterations);

/// A table for people.
std::string to_table(const std::vector<CommBenchRow>& rows);

}  // namespace chorale::comm
