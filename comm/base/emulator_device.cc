// The device "emulator": the host's memory, and streams that work while the host goes on, as those of a GPU do. A
// stream is a queue with a thread; events and graphs are real. It is as strict as CUDA is: work reads memory when its
// turn comes, copies of memory that is not pinned wait, a capture records and does nothing, and what a stream failed at
// is thrown by whoever waits for it.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "comm/base/emulator_queue.h"
#include "comm/base/emulator_stream.h"
#include "comm/base/env.h"
#include "comm/base/host_device.h"
#include "comm/base/log.h"

namespace chorale {
namespace {
using Clock = Deadline::Clock;

constexpr std::chrono::minutes kCopyDeadline{2};     // of memory that is not pinned, as on a GPU
constexpr std::chrono::milliseconds kWatchEvery{1};  // while a stream is waited for
constexpr std::chrono::seconds kReleaseDeadline{2};  // for memory to be no longer in use

/// Host memory that a device gave out as pinned; of all devices, as on a GPU.
class PinnedMemory {
 public:
  static PinnedMemory& instance() {
    static auto* const kInstance = new PinnedMemory;
    return *kInstance;
  }
  void add(const void* memory, size_t bytes) {
    const std::lock_guard lock(mutex_);
    blocks_[static_cast<const std::byte*>(memory)] = bytes;
  }
  void remove(const void* memory) {
    const std::lock_guard lock(mutex_);
    blocks_.erase(static_cast<const std::byte*>(memory));
  }
  bool contains(const void* memory) {
    const std::lock_guard lock(mutex_);
    const auto* p = static_cast<const std::byte*>(memory);
    auto after = blocks_.upper_bound(p);
    return after != blocks_.begin() && p < std::prev(after)->first + std::prev(after)->second;
  }

 private:
  std::mutex mutex_;
  std::map<const std::byte*, size_t> blocks_;
};

class EmulatorEvent : public Event {
 public:
  void* native() const override { return const_cast<EmulatorEvent*>(this); }
  std::chrono::nanoseconds since(const Event& earlier) const override {
    return mark->reached_at() - static_cast<const EmulatorEvent&>(earlier).mark->reached_at();
  }

  const std::shared_ptr<EmulatorMark> mark = std::make_shared<EmulatorMark>();
  const void* recorded_in = nullptr;  // the capture that it was last recorded in; nullptr: it was no capture
};

using Recording = std::vector<EmulatorQueue::Work>;

class EmulatorGraph : public Graph {
 public:
  explicit EmulatorGraph(Recording recording) : recording_(std::make_shared<const Recording>(std::move(recording))) {}
  void launch(Stream& stream) override;

 private:
  const std::shared_ptr<const Recording> recording_;
};

/// Work that came through the C handle.
class ForeignWork {
 public:
  ForeignWork(ChoraleOperation operation, void* context, void (*release)(void*))
      : operation_(operation), context_(context, release == nullptr ? [](void*) {} : release) {}
  void operator()() const {
    char problem[512] = "";
    if (operation_(context_.get(), problem, sizeof problem) != 0) fail(ErrorCode::kSystem, "{}", problem);
  }

 private:
  ChoraleOperation operation_;
  std::shared_ptr<void> context_;
};

class EmulatorStream : public Stream {
 public:
  explicit EmulatorStream(EmulatorQueue::Pace pace) : queue_(pace) {
    handle_.stream = this;
    handle_.enqueue = [](ChoraleEmulatorStream* self, ChoraleOperation operation, void* context,
                         void (*release)(void*)) {
      static_cast<Handle*>(self)->stream->push(ForeignWork(operation, context, release));
    };
    handle_.is_capturing = [](ChoraleEmulatorStream* self) {
      return static_cast<int>(static_cast<Handle*>(self)->stream->is_capturing());
    };
  }

  void copy(void* to, const void* from, size_t bytes, CopyKind kind) override {
    if (bytes == 0) return;
    push([=] { std::memcpy(to, from, bytes); });
    const void* host = kind == CopyKind::kHostToDevice ? from : to;
    if (kind != CopyKind::kDeviceToDevice && !PinnedMemory::instance().contains(host))
      synchronize(Deadline::after(kCopyDeadline));
  }
  void fill_zero(void* to, size_t bytes) override {
    if (bytes > 0) push([=] { std::memset(to, 0, bytes); });
  }

  void record(Event& event) override {
    auto& target = static_cast<EmulatorEvent&>(event);
    target.recorded_in = recording_;
    if (recording_ == nullptr) queue_.push_mark(target.mark);
  }
  void wait(Event& event) override {
    const auto& source = static_cast<const EmulatorEvent&>(event);
    if (source.recorded_in != recording_)
      fail(ErrorCode::kUnsupported, "a graph's event orders work of that graph and of its stream only");
    if (recording_ != nullptr) return;  // work of one stream is in order
    push([mark = source.mark, number = source.mark->last()] {
      const auto reached = mark->await(number, std::nullopt);
      if (reached->problem) fail(reached->problem->code, "{}", reached->problem->message);
    });
  }

  void synchronize(Deadline deadline) override {
    refuse_in_capture("synchronises");
    await(deadline, "the emulator's work", [&](Clock::time_point until) { return queue_.await_idle(until); });
  }
  void synchronize(Event& event, Deadline deadline) override {
    refuse_in_capture("synchronises");
    const auto& source = static_cast<const EmulatorEvent&>(event);
    if (source.recorded_in != nullptr) fail(ErrorCode::kUnsupported, "an event of a graph cannot be waited for");
    await(deadline, "an event of the emulator",
          [&, number = source.mark->last()](Clock::time_point until) { return is_reached(source, number, until); });
  }
  bool is_done(Event& event) override {
    const auto& source = static_cast<const EmulatorEvent&>(event);
    if (is_reached(source, source.mark->last(), Clock::time_point::min())) return true;
    check_watches();
    return false;
  }

  std::unique_ptr<Graph> capture(std::function<void()> work) override {
    refuse_in_capture("begins another");
    Recording recording;
    recording_ = &recording;
    try {
      work();
    } catch (...) {
      recording_ = nullptr;
      throw;
    }
    recording_ = nullptr;
    return std::make_unique<EmulatorGraph>(std::move(recording));
  }
  bool is_capturing() const override { return recording_ != nullptr; }
  void* native() const override { return const_cast<Handle*>(&handle_); }

  void push(EmulatorQueue::Work work) {
    if (recording_ != nullptr)
      recording_->push_back(std::move(work));
    else
      queue_.push(std::move(work));
  }
  std::shared_ptr<EmulatorQueue::State> state() const { return queue_.state(); }

 private:
  struct Handle : ChoraleEmulatorStream {
    EmulatorStream* stream = nullptr;
  };

  void refuse_in_capture(const char* what) const {
    if (recording_ != nullptr)
      fail(ErrorCode::kSystem, "the work of a capture {}, or copies host memory that is not pinned", what);
  }

  static bool is_reached(const EmulatorEvent& event, uint64_t number, Clock::time_point until) {
    const auto reached = event.mark->await(number, until);
    if (reached && reached->problem) throw Error(reached->problem->code, reached->problem->message);
    return reached.has_value();
  }

  template <typename IsDone>
  void await(Deadline deadline, const char* what, const IsDone& is_done) const {
    while (!is_done(has_watches() ? std::min(deadline.when(), Clock::now() + kWatchEvery) : deadline.when())) {
      check_watches();
      if (deadline.expired()) fail_deadline(what);
    }
  }

  EmulatorQueue queue_;
  Handle handle_;
  Recording* recording_ = nullptr;  // of the capture that is under way
};

void EmulatorGraph::launch(Stream& stream) {
  static_cast<EmulatorStream&>(stream).push([recording = recording_] {
    for (const EmulatorQueue::Work& work : *recording) work();
  });
}

/// Thread: any.
class EmulatorDevice : public HostDevice {
 public:
  /// `place`: "PCI address/UUID" of the GPU that it plays, or empty.
  explicit EmulatorDevice(const std::string& place) : HostDevice(DeviceKind::kEmulator) {
    const size_t slash = place.find('/');
    bus_id_ = place.substr(0, slash);
    if (slash != std::string::npos) identity_ = place.substr(slash + 1);
  }

  std::string identity() const override { return identity_; }
  std::string bus_id() const override { return bus_id_; }

  void release(void* memory, size_t) noexcept override {
    free_after_work([memory] { std::free(memory); });
  }
  void* allocate_pinned(size_t bytes) override {
    void* memory = HostDevice::allocate_pinned(bytes);
    PinnedMemory::instance().add(memory, bytes);
    return memory;
  }
  void release_pinned(void* memory, size_t) noexcept override {
    PinnedMemory::instance().remove(memory);
    free_after_work([memory] { std::free(memory); });
  }
  std::unique_ptr<Stream> make_stream() override {
    const bool is_late = env(EnvVar::kEmulatorStreams) == "late";
    auto stream = std::make_unique<EmulatorStream>(is_late ? EmulatorQueue::Pace::kLate : EmulatorQueue::Pace::kEager);
    const std::lock_guard lock(mutex_);
    std::erase_if(streams_, [](const auto& state) { return state.expired(); });
    streams_.push_back(stream->state());
    return stream;
  }
  std::unique_ptr<Event> make_event(EventTiming) override { return std::make_unique<EmulatorEvent>(); }

 private:
  /// Freeing memory waits for the device, as cudaFree does; but not for ever: a stream that is stuck frees it when it
  /// goes on.
  template <typename Free>
  void free_after_work(const Free& free) noexcept {
    const std::lock_guard lock(mutex_);
    const auto until = Clock::now() + (is_stuck_ ? std::chrono::seconds(0) : kReleaseDeadline);
    for (const auto& weak : streams_) {
      const auto state = weak.lock();
      if (state == nullptr || EmulatorQueue::is_idle(*state, until)) continue;
      is_stuck_ = true;
      return EmulatorQueue::push_last(*state, free);
    }
    is_stuck_ = false;
    free();
  }

  std::string bus_id_, identity_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::weak_ptr<EmulatorQueue::State>> streams_;
  bool is_stuck_ = false;
};

/// The GPUs that it plays: "PCI address/UUID" of each. By default one that is nowhere, of which every rank has its own.
std::vector<std::string> places() {
  std::vector<std::string> list;
  std::istringstream names(env(EnvVar::kEmulatorDevices).value_or(""));
  for (std::string name; std::getline(names, name, ',');) list.push_back(name);
  if (list.empty()) list.emplace_back();
  return list;
}

DeviceSurvey survey() { return {.num_devices = static_cast<int>(places().size())}; }

std::unique_ptr<Device> open(int index) {
  return std::make_unique<EmulatorDevice>(places().at(static_cast<size_t>(index)));
}

const DeviceRegistry::Add kAdd({"emulator", DeviceKind::kEmulator, survey, open});

}  // namespace
}  // namespace chorale
