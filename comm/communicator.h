// Communicator: how the ranks of one group exchange bytes and meet partial sums. One interface for all backends
// (threads, shared memory, MPI, a hybrid that picks per pair); worker/device_communicator is that of device memory. The
// parallel layers and the stage runner are its only users. All calls are collective in the same order on every member
// (send/recv pairwise), take a deadline, and give the same bits on every backend.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/base/deadline.h"
#include "comm/reduction_tree.h"

namespace chorale::comm {

using ConstByteSpan = std::span<const std::byte>;
using ByteSpan = std::span<std::byte>;

/// A send of at most this size does not wait for its receiver, while no more than kBufferedSendTotalBytes (between
/// ranks of one host: its ring, comm/backends/region.h) are under way from this rank.
constexpr size_t kBufferedSendBytes = size_t{2} << 10;
constexpr size_t kBufferedSendTotalBytes = size_t{1} << 20;

/// Thread: one thread at a time, the rank's compute thread.
/// A deadline that passes, or a peer that is gone, throws Error{kDeadlineExceeded | kPeerLost}; the communicator is
/// then unusable and the worker process exits (it never goes on with a half-done collective).
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string backend() const = 0;  // "thread", "shared_memory", "mpi", "hybrid"

  /// Blocking, matched by (source, tag) in order. Sizes on both sides must be equal.
  /// send may return before the peer received (buffered; a small one always does) but the buffer is free to reuse.
  virtual void send(ConstByteSpan data, int destination, int tag, Deadline deadline) = 0;
  virtual void recv(ByteSpan data, int source, int tag, Deadline deadline) = 0;

  virtual void barrier(Deadline deadline) = 0;
  virtual void broadcast(ByteSpan data, int root, Deadline deadline) = 0;

  /// Every rank contributes all[offsets[rank] .. offsets[rank+1]) bytes, in place; afterwards `all` is complete on
  /// every rank. `offsets` has size() + 1 entries; parts may differ in size and be empty.
  virtual void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) = 0;

  /// Tree all-reduce (N3). Rank r holds one partial per node in [schedule.first_node[r], first_node[r+1]), stored
  /// consecutively in `partials` [num_local_nodes, count] (may be overwritten). `out` [count] receives the root, equal
  /// bits on every rank. `out` may be the first partial's memory.
  virtual void tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                               Deadline deadline) = 0;

  /// Same sums, but rank r receives only elements [counts_begin[r], counts_begin[r+1]) of the root, into `out`.
  virtual void tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials,
                                   std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) = 0;

  /// A communicator of the members (ranks of this one, ascending). Collective over the members only; nullptr is never
  /// returned.
  virtual std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline deadline) = 0;
};

/// A group of one: every operation returns at once. Never touches MPI.
std::unique_ptr<Communicator> make_single();

/// `size` communicators whose ranks are threads of this process (tests, offline tools).
std::vector<std::unique_ptr<Communicator>> make_threads(int size);

}  // namespace chorale::comm
