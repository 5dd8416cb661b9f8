// The host as a device: what the CPU backend computes on, and what the CUDA emulator's kernels run over. All work is
// done when the call returns.
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "comm/base/device.h"
#include "comm/base/error.h"

namespace chorale {
namespace {

constexpr size_t kAlignment = 256;

class HostEvent : public Event {
 public:
  void* native() const override { return nullptr; }
};

class HostGraph : public Graph {
 public:
  explicit HostGraph(std::function<void()> work) : work_(std::move(work)) {}
  void launch(Stream&) override { work_(); }

 private:
  const std::function<void()> work_;
};

class HostStream : public Stream {
 public:
  void copy(void* to, const void* from, size_t bytes, CopyKind) override {
    if (bytes > 0) std::memcpy(to, from, bytes);
  }
  void fill_zero(void* to, size_t bytes) override {
    if (bytes > 0) std::memset(to, 0, bytes);
  }
  void record(Event&) override {}
  void wait(Event&) override {}
  void synchronize(Deadline) override {}
  void synchronize(Event&, Deadline) override {}
  std::unique_ptr<Graph> capture(std::function<void()> work) override {
    return std::make_unique<HostGraph>(std::move(work));
  }
  void* native() const override { return nullptr; }
};

class HostDevice : public Device {
 public:
  explicit HostDevice(DeviceKind kind) : kind_(kind) {}
  DeviceKind kind() const override { return kind_; }
  std::string name() const override { return std::string(to_string(kind_)); }
  std::string arithmetic() const override { return std::string(to_string(kind_)); }
  std::string identity() const override { return {}; }
  DeviceMemory memory() const override {
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    return {.free_bytes = page * static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)),
            .total_bytes = page * static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES))};
  }
  // Each allocation is malloc's own, so that ASan sees a kernel that leaves it.
  void* allocate(size_t bytes) override {
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes == 0 ? 1 : bytes) != 0)
      fail(ErrorCode::kResourceExhausted, "cannot allocate {} bytes of {} memory; {} bytes are free", bytes, name(),
           this->memory().free_bytes);
    std::memset(memory, 0, bytes);
    return memory;
  }
  void release(void* memory, size_t) noexcept override { std::free(memory); }
  void* allocate_pinned(size_t bytes) override { return allocate(bytes); }
  void release_pinned(void* memory, size_t) noexcept override { std::free(memory); }
  std::unique_ptr<Stream> make_stream() override { return std::make_unique<HostStream>(); }
  std::unique_ptr<Event> make_event() override { return std::make_unique<HostEvent>(); }

 private:
  const DeviceKind kind_;
};

DeviceSurvey one_device() { return {.num_devices = 1}; }
template <DeviceKind kKind>
std::unique_ptr<Device> open(int) {
  return std::make_unique<HostDevice>(kKind);
}

const DeviceRegistry::Add kAddCpu({"cpu", DeviceKind::kCpu, one_device, open<DeviceKind::kCpu>});
const DeviceRegistry::Add kAddEmulator({"emulator", DeviceKind::kEmulator, one_device, open<DeviceKind::kEmulator>});

}  // namespace
}  // namespace chorale
