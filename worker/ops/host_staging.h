// Pinned host memory through which small arrays reach a device without making the host wait: each is copied into a ring
// and from there in the stream's order. Owned by the stage runner, used by `place` (worker/layers/step.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "comm/base/device.h"

namespace chorale::worker {

/// Thread: the rank's compute thread.
class HostStaging {
 public:
  /// `num_bytes` of each segment of the ring: as much as a step copies. Then a step enters one segment at most, and the
  /// one that it enters was left three steps ago: of two in flight, none waits for it.
  HostStaging(const DeviceStream& where, size_t num_bytes);
  /// Queues the copy of host values to device memory; `from` is free to reuse when it returns. Waits only when the ring
  /// comes round to a segment that the device has not read yet. Throws Error{kDeadlineExceeded | kSystem}.
  void copy(void* to, const void* from, size_t num_bytes);

  /// Tests: copies that waited for the device, or for a larger segment.
  uint64_t num_waits() const { return num_waits_; }

 private:
  struct Segment {
    PinnedBuffer memory;
    std::unique_ptr<Event> is_free;  // the device has read it
    bool was_left = false;           // is_free is recorded
  };
  void enter_next(size_t num_bytes);

  const DeviceStream where_;
  std::array<Segment, 4> ring_;
  size_t segment_ = 0;  // being filled
  size_t used_ = 0;     // bytes of it
  uint64_t num_waits_ = 0;
};

}  // namespace chorale::worker
