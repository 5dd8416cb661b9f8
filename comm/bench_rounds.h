// What benches of communication share: the sizes and times that they take, how ranks repeat an operation equally often,
// the partial sums of an all-reduce with the sum that they must give, and rows of results. Used by comm/bench_comm.h
// for memory of the host and by worker/device_comm_bench.h for that of devices.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.h"

namespace chorale::comm {

struct CommBenchRow {
  std::string test;     // "all_reduce", "send_recv" (half a round trip), "control_round_trip"
  std::string backend;  // "shared_memory"; on devices "cuda/nccl", "emulator/mpi"
  int ranks = 0;
  size_t bytes = 0;
  int num_samples = 0;
  double p50_us = 0;
  double p99_us = 0;
  double mean_us = 0;
  double algbw_gbps = 0;  // 1e9 bytes a second, from the mean
  double busbw_gbps = 0;  // algbw x what each link carries of it, as nccl-tests count
};

struct CommBenchOptions {
  std::vector<size_t> sizes{8 << 10, 64 << 10, 1 << 20};  // bytes of one message or of one sum; multiples of 4
  int warmup = 50;
  int iterations = 1000;          // of sizes up to 64 KiB; larger ones run proportionally fewer, 20 if there is time
  double seconds_per_size = 5.0;  // an upper bound; a quarter of it for the warm-up
};

/// Does an operation `count` times; returns the times that they took, in microseconds.
using BenchRound = std::function<std::vector<double>(int count)>;

/// Collective: all members do `round` equally often, rank 0 watches the clock and says how often. Returns the times of
/// what followed the warm-up. Throws what the operation throws.
std::vector<double> run_rounds(Communicator& comm, const CommBenchOptions& options, size_t bytes,
                               const BenchRound& round);

/// `row` with what `times`, not empty, come to. `bus_factor`: busbw / algbw.
CommBenchRow summarise(std::vector<double> times, CommBenchRow row, double bus_factor);
double all_reduce_bus_factor(int num_ranks);

/// Partial sums of an all-reduce between `num_ranks` ranks as a model of 16 leaves has them (N2), or of more where
/// there are more ranks: values whose sum shows the order in which it was added.
class BenchSum {
 public:
  BenchSum(int num_ranks, size_t num_values);
  const TreeSchedule& schedule() const { return schedule_; }
  /// [num_local_nodes, num_values]: what rank `rank` holds.
  std::vector<float> partials(int rank) const;
  /// [num_values]: one value a rank and place, for what moves or adds without a tree.
  std::vector<float> values(int rank) const;
  /// Throws Error{kCorrupt} that names `what` unless `got` [num_values] is the root of the tree, bit by bit.
  void check_root(std::span<const float> got, std::string_view what) const;
  /// The same for the sum of all ranks' values() in any order, whose rounding is allowed for, after `times` all-reduces
  /// in place.
  void check_any_order(std::span<const float> got, int times, std::string_view what) const;

 private:
  std::vector<float> node(int index) const;  // one period
  const int num_ranks_;
  const size_t num_values_;
  TreeSchedule schedule_;
};

/// A table for people.
std::string to_table(const std::vector<CommBenchRow>& rows);

}  // namespace chorale::comm
