// A stream of the emulator that does not go on before it is let: tests hold back another stream with it, to see what
// happens meanwhile.
#pragma once

#include <atomic>
#include <memory>

#include "comm/base/device.h"
#include "comm/base/emulator_stream.h"

namespace chorale::worker::test {

class Gate {
 public:
  explicit Gate(Device& device) : stream_(device.make_stream()), event_(device.make_event()) {
    auto* handle = static_cast<ChoraleEmulatorStream*>(stream_->native());
    const auto hold = [](void* context, char*, size_t) {
      static_cast<std::atomic<bool>*>(context)->wait(false);
      return 0;
    };
    handle->enqueue(handle, hold, &is_open_, nullptr);
    stream_->record(*event_);
  }
  ~Gate() { open(); }
  /// What `stream` is given from now on waits for open().
  void hold_back(Stream& stream) { stream.wait(*event_); }
  void open() {
    is_open_ = true;
    is_open_.notify_all();
  }

 private:
  std::atomic<bool> is_open_{false};
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Event> event_;
};

}  // namespace chorale::worker::test
