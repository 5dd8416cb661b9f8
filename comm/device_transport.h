// DeviceTransport: moves device memory between the ranks of a group, in the order of a stream, without the host: NCCL.
// Made by a worker's start, used by its device communicator and its hidden link. It adds up nothing in a fixed order
// and knows no tree: that is the worker's (N3).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/device.h"
#include "comm/base/registry.h"
#include "comm/communicator.h"

namespace chorale::comm {

/// Every call queues work and returns; memory may be reused in the order of the stream. Calls are collective in the
/// same order on every member (send and recv pairwise); `deadline` is that for the library to take the work, whose end
/// the stream's own waits have a deadline for. As a StreamWatch it ends such a wait when a peer fails.
/// Throws Error{kPeerLost | kDeadlineExceeded | kSystem} that names the operation and the group; then the worker
/// leaves. Thread: the rank's compute thread.
class DeviceTransport : public StreamWatch {
 public:
  virtual int rank() const = 0;  // in the group
  virtual int size() const = 0;
  virtual std::string name() const = 0;  // "NCCL 2.28.9"

  virtual void send(ConstByteSpan data, int destination, Stream& stream, Deadline deadline) = 0;
  virtual void recv(ByteSpan data, int source, Stream& stream, Deadline deadline) = 0;
  virtual void broadcast(ByteSpan data, int root, Stream& stream, Deadline deadline) = 0;
  /// As Communicator::all_gather.
  virtual void all_gather(ByteSpan all, std::span<const size_t> offsets, Stream& stream, Deadline deadline) = 0;
  /// In place, in whatever order the library adds: for `--answer fast` only.
  virtual void all_reduce_sum(std::span<float> values, Stream& stream, Deadline deadline) = 0;

  /// Makes it anew, with all members, as it was made first: after a call was refused while a graph was captured, which
  /// may leave it unusable for that rank, and the ranks with different counts of calls. REQUIRES: no work of it under
  /// way, and no graph of it left.
  virtual void renew(Deadline deadline) = 0;
};

struct DeviceGroup {
  Communicator& host;        // how members meet to make it; over host memory. Outlives it
  std::vector<int> members;  // ranks of `host`, the caller among them, in the order of the group
  std::string label;         // "stage 1", for messages
  int max_ctas = 0;          // thread blocks of a GPU for its work; 0: as many as the library thinks right
  Deadline deadline;
};

struct DeviceTransportEntry {
  std::string_view name;  // "nccl"
  /// What a rank on such a device has; "" where it cannot take part.
  std::string (*version)(DeviceKind kind) = nullptr;
  /// Collective over the members. Connections may be made by the first calls only (worker/transport_warm_up.h). Throws
  /// Error{kUnsupported | kDeadlineExceeded | kPeerLost | kSystem}.
  std::unique_ptr<DeviceTransport> (*make)(const DeviceGroup& group) = nullptr;
};
using DeviceTransportRegistry = Registry<DeviceTransportEntry>;

}  // namespace chorale::comm
