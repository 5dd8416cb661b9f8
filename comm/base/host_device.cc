// The host as the device that the CPU backend computes on. All work is done when the call returns.
#include "comm/base/host_device.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "comm/base/error.h"

namespace chorale {

// Each allocation is malloc's own, so that ASan sees a kernel that leaves it.
void* HostDevice::allocate(size_t bytes) {
  constexpr size_t kAlignment = 256;
  void* memory = nullptr;
  if (posix_memalign(&memory, kAlignment, bytes == 0 ? 1 : bytes) != 0)
    fail(ErrorCode::kResourceExhausted, "cannot allocate {} bytes of {} memory; {} bytes are free", bytes, name(),
         this->memory().free_bytes);
  std::memset(memory, 0, bytes);
  return memory;
}

DeviceMemory HostDevice::memory() const {
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return {.free_bytes = page * static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)),
          .total_bytes = page * static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES))};
}

namespace {

class HostEvent : public Event {
 public:
  void* native() const override { return nullptr; }
  std::chrono::nanoseconds since(const Event& earlier) const override {
    return when_ - static_cast<const HostEvent&>(earlier).when_;
  }
  void record() { when_ = Deadline::Clock::now(); }

 private:
  Deadline::Clock::time_point when_{};
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
  void record(Event& event) override { static_cast<HostEvent&>(event).record(); }
  void wait(Event&) override {}
  void synchronize(Deadline) override {}
  void synchronize(Event&, Deadline) override {}
  bool is_done(Event&) override { return true; }
  bool is_capturing() const override { return false; }
  std::unique_ptr<Graph> capture(std::function<void()> work) override {
    return std::make_unique<HostGraph>(std::move(work));
  }
  void* native() const override { return nullptr; }
};

}  // namespace

std::unique_ptr<Stream> HostDevice::make_stream() { return std::make_unique<HostStream>(); }
std::unique_ptr<Event> HostDevice::make_event(EventTiming) { return std::make_unique<HostEvent>(); }

namespace {

const DeviceRegistry::Add kAddCpu({"cpu", DeviceKind::kCpu, [] { return DeviceSurvey{.num_devices = 1}; },
                                   [](int) -> std::unique_ptr<Device> {
                                     return std::make_unique<HostDevice>(DeviceKind::kCpu);
                                   }});

}  // namespace
}  // namespace chorale
