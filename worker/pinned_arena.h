// Host memory that a device writes a step's answers into: pinned, so that no copy makes the host wait. Each step in
// flight has one (worker/step_in_flight.h); it is used again when the step has been answered.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "comm/base/device.h"

namespace chorale::worker {

/// Thread: the rank's compute thread.
class PinnedArena {
 public:
  explicit PinnedArena(Device& device) : device_(device) {}

  /// `count` elements, not initialised. Valid until reset().
  template <typename T>
  T* take(size_t count) {
    constexpr size_t kAlignment = 64;
    const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].size_bytes()) {
      ++chunk_;
      used_ = 0;
    }
    if (chunk_ == chunks_.size())
      chunks_.emplace_back(device_, std::max(bytes, chunks_.empty() ? kFirstBytes : 2 * chunks_.back().size_bytes()));
    std::byte* place = chunks_[chunk_].data() + used_;
    used_ += bytes;
    return reinterpret_cast<T*>(place);
  }
  void reset() { chunk_ = used_ = 0; }

 private:
  static constexpr size_t kFirstBytes = size_t{64} << 10;
  Device& device_;
  std::vector<PinnedBuffer> chunks_;  // pointers stay valid while it grows
  size_t chunk_ = 0, used_ = 0;
};

}  // namespace chorale::worker
