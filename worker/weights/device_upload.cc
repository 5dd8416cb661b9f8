#include "worker/weights/device_upload.h"

#include <algorithm>
#include <cstring>

namespace chorale::worker {
namespace {
constexpr size_t kSliceBytes = size_t{16} << 20;  // long enough for PCIe's full speed, small beside a host's memory
}  // namespace

DeviceUpload::DeviceUpload(const DeviceStream& where) : where_(where) {
  for (Slice& slice : slices_) {
    slice.memory = PinnedBuffer(*where_.device, kSliceBytes);
    slice.is_free = where_.device->make_event();
    where_.stream->record(*slice.is_free);
  }
}

void DeviceUpload::copy(void* to, const void* from, size_t num_bytes, Deadline deadline) {
  for (size_t done = 0; done < num_bytes;) {
    Slice& slice = slices_[next_];
    next_ = (next_ + 1) % slices_.size();
    const size_t size = std::min(kSliceBytes, num_bytes - done);
    where_.stream->synchronize(*slice.is_free, deadline);
    std::memcpy(slice.memory.data(), static_cast<const std::byte*>(from) + done, size);
    where_.stream->copy(static_cast<std::byte*>(to) + done, slice.memory.data(), size, CopyKind::kHostToDevice);
    where_.stream->record(*slice.is_free);
    done += size;
  }
  num_bytes_ += num_bytes;
}

}  // namespace chorale::worker
