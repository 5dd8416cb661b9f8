// Device: where a rank keeps its weights and computes: memory, streams and events of one GPU, of the emulator, or of
// the host. Opened once by a rank's start and handed down; the devices register themselves in a table. Kernels know
// only Stream::native().
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/base/deadline.h"
#include "comm/base/error.h"
#include "comm/base/registry.h"

namespace chorale {

enum class DeviceKind : uint8_t { kCpu, kCuda, kEmulator };
std::string_view to_string(DeviceKind kind);
/// Throws Error{kInvalidArgument} that lists the valid names.
DeviceKind device_kind_from_string(std::string_view name);

struct DeviceMemory {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
};

/// Whether an event also tells when: costs the device a little.
enum class EventTiming : uint8_t { kOff, kOn };

/// A point in a stream's work. Move-only through its owner; made by Device::make_event.
class Event {
 public:
  virtual ~Event() = default;
  virtual void* native() const = 0;
  /// From `earlier` to this. REQUIRES: both were made with timing, and a stream has come to both.
  virtual std::chrono::nanoseconds since(const Event& earlier) const = 0;
};

/// Work of a stream that was recorded once and is given to the device in one call. Made by Stream::capture.
class Graph {
 public:
  virtual ~Graph() = default;
  /// In the order of `stream`'s other work, of the device that it was captured on.
  virtual void launch(class Stream& stream) = 0;
};

/// What a stream's work may wait for besides the device: peers. Thread: that of the stream that it watches.
class StreamWatch {
 public:
  virtual ~StreamWatch() = default;
  /// Called again and again by whoever waits for the stream. Throws to end the wait, which the device never would.
  virtual void check() = 0;
  /// What the stream may be waiting for, "" for nothing: for the message of a deadline.
  virtual std::string waiting_for() const = 0;
};

enum class CopyKind { kHostToDevice, kDeviceToHost, kDeviceToDevice };

/// Work that the device does in order, while the host goes on. Thread: one at a time. Only DeviceKind::kCpu does it at
/// once.
class Stream {
 public:
  virtual ~Stream() = default;
  /// Asynchronous when the host memory is pinned (Device::allocate_pinned); otherwise it returns when that is free to
  /// reuse.
  virtual void copy(void* to, const void* from, size_t bytes, CopyKind kind) = 0;
  virtual void fill_zero(void* to, size_t bytes) = 0;
  virtual void record(Event& event) = 0;
  virtual void wait(Event& event) = 0;  // the stream waits, not the caller
  /// Returns when all work given so far is done. Throws Error{kDeadlineExceeded}, Error{kSystem} for what failed on the
  /// device.
  virtual void synchronize(Deadline deadline) = 0;
  virtual void synchronize(Event& event, Deadline deadline) = 0;
  /// Whether the stream that recorded the event has come to it; returns at once. Throws as synchronize does, but for
  /// the deadline.
  virtual bool is_done(Event& event) = 0;
  /// Calls `work` once and records what it gives to this stream instead of doing it: kernels with their parameters by
  /// value, copies, fills, events that order it within itself. `work` must neither synchronise nor allocate, host
  /// memory that it copies must be pinned, and all memory that it names must live as long as the graph. (The CPU, which
  /// has no graphs, keeps `work` and calls it at each launch.)
  /// Where `work` throws, so does this: what was recorded is dropped, and the stream works as before.
  virtual std::unique_ptr<Graph> capture(std::function<void()> work) = 0;
  /// Whether it records now: inside `work`.
  virtual bool is_capturing() const = 0;
  virtual void* native() const = 0;  // cudaStream_t; the emulator's: comm/base/emulator_stream.h

  /// Asked by whoever waits for this stream, and named where the wait ends at its deadline. It must outlive the stream
  /// or be removed.
  void add_watch(StreamWatch& watch) { watches_.push_back(&watch); }
  void remove_watch(StreamWatch& watch) { std::erase(watches_, &watch); }

 protected:
  bool has_watches() const { return !watches_.empty(); }
  void check_watches() const {
    for (StreamWatch* watch : watches_) watch->check();
  }
  /// Throws Error{kDeadlineExceeded}.
  [[noreturn]] void fail_deadline(std::string_view what) const;

 private:
  std::vector<StreamWatch*> watches_;
};

/// Thread: any; the memory it gave out must be returned before it goes.
class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceKind kind() const = 0;
  virtual std::string name() const = 0;  // "NVIDIA H200"
  /// What decides its arithmetic: "sm_90", "emulator". Part of the numerics class (N10).
  virtual std::string arithmetic() const = 0;
  /// Tells it from all others of its host ("" where it has no memory of its own), whatever its index or name: ranks
  /// that name the same one share its memory. A GPU's UUID, or that of the part (MIG) that it is.
  virtual std::string identity() const = 0;
  /// Where the GPU is, or the one that it is a part of: its PCI address, "0000:1b:00.0"; "" likewise. NCCL takes ranks
  /// at one address for one GPU.
  virtual std::string bus_id() const = 0;
  virtual DeviceMemory memory() const = 0;
  /// Zeroed, aligned to 256 bytes. Throws Error{kResourceExhausted} that says what was wanted and what is free.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory, size_t bytes) noexcept = 0;
  /// Host memory that copies need not be staged through.
  virtual void* allocate_pinned(size_t bytes) = 0;
  virtual void release_pinned(void* memory, size_t bytes) noexcept = 0;
  virtual std::unique_ptr<Stream> make_stream() = 0;
  virtual std::unique_ptr<Event> make_event(EventTiming timing) = 0;
  std::unique_ptr<Event> make_event() { return make_event(EventTiming::kOff); }
};

/// Where a rank computes: a device and the stream of its work there. Both null: the host.
struct DeviceStream {
  Device* device = nullptr;
  Stream* stream = nullptr;
  DeviceKind kind() const { return device == nullptr ? DeviceKind::kCpu : device->kind(); }
  explicit operator bool() const { return device != nullptr; }
};

/// Host memory for copies to and from a device; owner.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(Device& device, size_t bytes)
      : device_(&device), data_(static_cast<std::byte*>(device.allocate_pinned(bytes))), bytes_(bytes) {}
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) device_->release_pinned(data_, bytes_);
  }
  std::byte* data() const { return data_; }
  size_t size_bytes() const { return bytes_; }

 private:
  void swap(PinnedBuffer& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

enum class DeviceAbsence : uint8_t { kNone, kNotBuiltIn, kNoDriver, kNoDevice, kDriverTooOld, kBroken };

/// What a kind of device finds on this host.
struct DeviceSurvey {
  int num_devices = 0;
  DeviceAbsence absence = DeviceAbsence::kNone;  // why there is none
  std::string problem;                           // the same in words
  std::string advice;                            // what to do
};

/// What one device is, for `doctor` and a worker's hello.
struct DeviceFacts {
  std::string name;            // "NVIDIA H200"
  std::string arithmetic;      // "sm_90"
  int compute_capability = 0;  // 90
  int num_multiprocessors = 0;
  DeviceMemory memory;
  std::string driver;                // "CUDA 13.0, 580.82.07": what the driver can do, and its own version where known
  std::string runtime;               // "CUDA 13.0": what the program was built with
  std::vector<uint8_t> peer_access;  // [num_devices] 1 where it can read the other's memory, and for itself
  std::optional<int> num_nvlinks;    // active ones; nothing where the driver's library does not say
};

struct DeviceEntry {
  std::string_view name;  // to_string(kind)
  DeviceKind kind = DeviceKind::kCpu;
  DeviceSurvey (*survey)() = nullptr;  // never throws, takes no memory of a device
  std::unique_ptr<Device> (*open)(int index) = nullptr;
  /// Opens the device, if this process has not; nullptr where there is nothing to tell.
  Result<DeviceFacts> (*facts)(int index) = nullptr;
};
using DeviceRegistry = Registry<DeviceEntry>;

/// Of the GPUs of this host, also where the program was built without CUDA.
DeviceSurvey survey_of_gpus();

/// What "auto" means on this host: a GPU where there is one, else the CPU.
DeviceKind best_device();

/// Device `index` modulo their number. Throws Error{kUnsupported} with the survey's problem and advice, or that names
/// the kinds that were built in.
std::unique_ptr<Device> open_device(DeviceKind kind, int index);

}  // namespace chorale
