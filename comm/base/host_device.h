// A device whose memory is the host's: the CPU itself, and what the emulator is built on. Opened through the table of
// devices (comm/base/device.h), which is what everybody else includes.
#pragma once

#include <cstdlib>
#include <memory>
#include <string>

#include "comm/base/device.h"

namespace chorale {

class HostDevice : public Device {
 public:
  explicit HostDevice(DeviceKind kind) : kind_(kind) {}
  DeviceKind kind() const override { return kind_; }
  std::string name() const override { return std::string(to_string(kind_)); }
  std::string arithmetic() const override { return std::string(to_string(kind_)); }
  std::string identity() const override { return {}; }
  std::string bus_id() const override { return {}; }
  DeviceMemory memory() const override;
  void* allocate(size_t bytes) override;
  void release(void* memory, size_t) noexcept override { std::free(memory); }
  void* allocate_pinned(size_t bytes) override { return HostDevice::allocate(bytes); }
  void release_pinned(void* memory, size_t) noexcept override { std::free(memory); }
  std::unique_ptr<Stream> make_stream() override;
  std::unique_ptr<Event> make_event(EventTiming timing) override;

 private:
  const DeviceKind kind_;
};

}  // namespace chorale
