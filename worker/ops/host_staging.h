// Pinned host memory through which small arrays reach a device without making the host wait: each is copied into a ring
// and from there in the stream's order. Owned by the stage runner, used by `place` (worker/layers/step.h).
#pragma once

#include <cstddef>

#include "comm/base/device.h"

namespace chorale::worker {

/// Thread: the rank's compute thread.
class HostStaging {
 public:
  explicit HostStaging(const DeviceStream& where, size_t num_bytes = size_t{1} << 20);
  /// Queues the copy of host values to device memory; `from` is free to reuse when it returns. Waits for the stream
  /// only when the ring comes round. Throws Error{kDeadlineExceeded | kSystem}.
  void copy(void* to, const void* from, size_t num_bytes);

 private:
  const DeviceStream where_;
  PinnedBuffer ring_;
  size_t used_ = 0;
};

}  // namespace chorale::worker
