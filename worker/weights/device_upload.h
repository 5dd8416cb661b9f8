// Moves weights into a device's memory in slices: while one pinned slice travels, the next is filled. Used by the
// weight loader; small things go by copy_to_device.
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "comm/base/device.h"

namespace chorale::worker {

/// Thread: one.
class DeviceUpload {
 public:
  explicit DeviceUpload(const DeviceStream& where);
  /// Queues the copy; `from` is free to reuse when it returns. Throws Error{kDeadlineExceeded | kSystem}.
  void copy(void* to, const void* from, size_t num_bytes, Deadline deadline);
  /// Returns when everything has arrived.
  void finish(Deadline deadline) { where_.stream->synchronize(deadline); }
  size_t num_bytes() const { return num_bytes_; }

 private:
  struct Slice {
    PinnedBuffer memory;
    std::unique_ptr<Event> is_free;  // recorded behind the copy out of it
  };
  const DeviceStream where_;
  std::array<Slice, 2> slices_;
  size_t next_ = 0;
  size_t num_bytes_ = 0;
};

}  // namespace chorale::worker
