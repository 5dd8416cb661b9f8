#include "worker/ops/host_staging.h"

#include <algorithm>
#include <cstring>

namespace chorale::worker {
namespace {
constexpr size_t kAlignment = 64;
constexpr std::chrono::seconds kRingDeadline{60};  // the step's own deadline and watchdog are shorter
}  // namespace

HostStaging::HostStaging(const DeviceStream& where, size_t num_bytes) : where_(where) {
  for (Segment& segment : ring_)
    segment = {PinnedBuffer(*where_.device, num_bytes), where_.device->make_event(), false};
}

void HostStaging::copy(void* to, const void* from, size_t num_bytes) {
  if (num_bytes == 0) return;
  if (used_ + num_bytes > ring_[segment_].memory.size_bytes()) enter_next(num_bytes);
  std::byte* place = ring_[segment_].memory.data() + used_;
  used_ += (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::memcpy(place, from, num_bytes);
  where_.stream->copy(to, place, num_bytes, CopyKind::kHostToDevice);
}

void HostStaging::enter_next(size_t num_bytes) {
  where_.stream->record(*ring_[segment_].is_free);
  ring_[segment_].was_left = true;
  segment_ = (segment_ + 1) % ring_.size();
  used_ = 0;
  Segment& segment = ring_[segment_];
  const bool grows = num_bytes > segment.memory.size_bytes();
  if (grows || (segment.was_left && !where_.stream->is_done(*segment.is_free))) ++num_waits_;
  if (segment.was_left) where_.stream->synchronize(*segment.is_free, Deadline::after(kRingDeadline));
  segment.was_left = false;
  if (grows) segment.memory = PinnedBuffer(*where_.device, std::max(num_bytes, 2 * segment.memory.size_bytes()));
}

}  // namespace chorale::worker
