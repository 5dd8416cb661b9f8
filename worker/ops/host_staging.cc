#include "worker/ops/host_staging.h"

#include <algorithm>
#include <cstring>

namespace chorale::worker {
namespace {
constexpr size_t kAlignment = 64;
constexpr std::chrono::seconds kRingDeadline{60};  // the step's own deadline and watchdog are shorter
}  // namespace

HostStaging::HostStaging(const DeviceStream& where, size_t num_bytes)
    : where_(where), ring_(*where.device, num_bytes) {}

void HostStaging::copy(void* to, const void* from, size_t num_bytes) {
  if (num_bytes == 0) return;
  if (used_ + num_bytes > ring_.size_bytes()) {
    where_.stream->synchronize(Deadline::after(kRingDeadline));  // copies out of the ring have ended
    used_ = 0;
    if (num_bytes > ring_.size_bytes())
      ring_ = PinnedBuffer(*where_.device, std::max(num_bytes, 2 * ring_.size_bytes()));
  }
  std::byte* place = ring_.data() + used_;
  used_ += (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
  std::memcpy(place, from, num_bytes);
  where_.stream->copy(to, place, num_bytes, CopyKind::kHostToDevice);
}

}  // namespace chorale::worker
