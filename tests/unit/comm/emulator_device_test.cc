// The emulator's streams: a queue and a thread each, as strict as CUDA's: the host goes on, events order streams,
// errors come out where somebody waits, deadlines hold, and graphs keep what was recorded.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <future>
#include <thread>
#include <vector>

#include "comm/base/device.h"
#include "comm/base/emulator_stream.h"
#include "comm/base/error.h"

namespace chorale {
namespace {

using testing::HasSubstr;

/// Work through the C handle, as a kernel's launch or a stand-in for NCCL gives it.
void enqueue(Stream& stream, std::function<void()> work) {
  auto* handle = static_cast<ChoraleEmulatorStream*>(stream.native());
  handle->enqueue(
      handle,
      [](void* context, char* problem, size_t bytes) {
        try {
          (*static_cast<std::function<void()>*>(context))();
        } catch (const std::exception& error) {
          std::strncpy(problem, error.what(), bytes - 1);
          return 1;
        }
        return 0;
      },
      new std::function<void()>(std::move(work)),
      [](void* context) { delete static_cast<std::function<void()>*>(context); });
}

template <typename Fn>
std::string error_of(const Fn& fn, ErrorCode code) {
  try {
    fn();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

class EmulatedStream : public testing::Test {
 protected:
  static Deadline soon() { return Deadline::after(std::chrono::seconds(30)); }
  static Deadline shortly() { return Deadline::after(std::chrono::milliseconds(30)); }

  /// Work that lasts until the promise is kept.
  void block(Stream& stream, std::promise<void>& gate) {
    enqueue(stream, [open = std::shared_future<void>(gate.get_future())] { open.wait(); });
  }

  std::unique_ptr<Device> device_ = open_device(DeviceKind::kEmulator, 0);
  std::unique_ptr<Stream> stream_ = device_->make_stream();
};

TEST_F(EmulatedStream, WorksInOrderWhileTheHostGoesOn) {
  std::promise<void> gate;
  PinnedBuffer from(*device_, 4), to(*device_, 4);
  std::vector<int> order;
  block(*stream_, gate);
  for (int i = 0; i < 3; ++i) enqueue(*stream_, [&, i] { order.push_back(i); });
  stream_->copy(to.data(), from.data(), 4, CopyKind::kHostToDevice);
  from.data()[0] = std::byte{7};  // the copy has not begun
  EXPECT_TRUE(order.empty());
  gate.set_value();
  stream_->synchronize(soon());
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(to.data()[0], std::byte{7});
}

TEST_F(EmulatedStream, CopiesOfMemoryThatIsNotPinnedEndBeforeTheCallReturns) {
  std::vector<uint8_t> host(64, 3), back(64, 0);
  void* memory = device_->allocate(64);
  stream_->copy(memory, host.data(), 64, CopyKind::kHostToDevice);
  std::fill(host.begin(), host.end(), 9);
  stream_->copy(back.data(), memory, 64, CopyKind::kDeviceToHost);
  EXPECT_EQ(back, std::vector<uint8_t>(64, 3));
  device_->release(memory, 64);
}

TEST_F(EmulatedStream, AnEventHoldsTheOtherStreamAndNotItsOwn) {
  const auto other = device_->make_stream();
  const auto event = device_->make_event(), never_recorded = device_->make_event();
  std::promise<void> gate;
  std::atomic<int> value{0};
  other->wait(*never_recorded);  // holds nobody
  block(*stream_, gate);
  enqueue(*stream_, [&] { value = 1; });
  stream_->record(*event);
  int seen = -1;
  other->wait(*event);
  enqueue(*other, [&] { seen = value; });
  EXPECT_THAT(error_of([&] { other->synchronize(shortly()); }, ErrorCode::kDeadlineExceeded), HasSubstr("deadline"));
  EXPECT_THAT(error_of([&] { stream_->synchronize(*event, shortly()); }, ErrorCode::kDeadlineExceeded),
              HasSubstr("an event"));
  gate.set_value();
  other->synchronize(soon());
  EXPECT_EQ(seen, 1);
  stream_->synchronize(*event, soon());
}

TEST_F(EmulatedStream, TheFirstErrorComesOutWhereSomebodyWaitsAndStays) {
  const auto other = device_->make_stream();
  const auto event = device_->make_event();
  bool went_on = false;
  enqueue(*stream_, [] { fail(ErrorCode::kSystem, "the kernel broke"); });
  enqueue(*stream_, [] { fail(ErrorCode::kSystem, "and again"); });
  enqueue(*stream_, [&] { went_on = true; });
  stream_->record(*event);
  other->wait(*event);
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(error_of([&] { stream_->synchronize(soon()); }, ErrorCode::kSystem), "the kernel broke");
  EXPECT_EQ(error_of([&] { stream_->synchronize(*event, soon()); }, ErrorCode::kSystem), "the kernel broke");
  EXPECT_EQ(error_of([&] { other->synchronize(soon()); }, ErrorCode::kSystem), "the kernel broke");
  EXPECT_FALSE(went_on);
}

TEST_F(EmulatedStream, AWatchEndsTheWaitForWorkThatNeverEndsAndIsNamedAtTheDeadline) {
  struct Watch : StreamWatch {
    void check() override {
      if (++calls == 3) fail(ErrorCode::kPeerLost, "rank 3 is gone");
    }
    std::string waiting_for() const override { return "a word from rank 3"; }
    int calls = 0;
  } watch;
  std::promise<void> gate;
  block(*stream_, gate);
  stream_->add_watch(watch);
  EXPECT_EQ(error_of([&] { stream_->synchronize(soon()); }, ErrorCode::kPeerLost), "rank 3 is gone");
  EXPECT_THAT(error_of([&] { stream_->synchronize(shortly()); }, ErrorCode::kDeadlineExceeded),
              HasSubstr("a word from rank 3"));
  EXPECT_GT(watch.calls, 3);
  stream_->remove_watch(watch);
  EXPECT_EQ(error_of([&] { stream_->synchronize(shortly()); }, ErrorCode::kDeadlineExceeded),
            "the deadline passed while waiting for the emulator's work");
  gate.set_value();
}

TEST_F(EmulatedStream, AGraphKeepsParametersByValueAndReadsMemoryAtItsLaunch) {
  PinnedBuffer in(*device_, 1), out(*device_, 8);
  std::byte parameter{5};
  int captured = 0;
  const auto graph = stream_->capture([&] {
    ++captured;
    const auto event = device_->make_event();
    enqueue(*stream_, [to = out.data(), parameter] { to[0] = parameter; });
    stream_->record(*event);
    stream_->wait(*event);
    stream_->copy(out.data() + 1, in.data(), 1, CopyKind::kDeviceToDevice);
    stream_->fill_zero(out.data() + 2, 1);
  });
  stream_->synchronize(soon());
  EXPECT_EQ(out.data()[0], std::byte{0}) << "it was done at the capture";
  parameter = std::byte{6};
  for (int round = 1; round < 3; ++round) {
    in.data()[0] = static_cast<std::byte>(10 * round);
    out.data()[2] = std::byte{0xff};
    graph->launch(*stream_);
    stream_->synchronize(soon());
    EXPECT_EQ(out.data()[0], std::byte{5});
    EXPECT_EQ(out.data()[1], static_cast<std::byte>(10 * round));
    EXPECT_EQ(out.data()[2], std::byte{0});
  }
  EXPECT_EQ(captured, 1);
}

TEST_F(EmulatedStream, ACaptureRefusesWhatCudaRefuses) {
  const auto other = device_->make_stream();
  const auto before = device_->make_event(), inside = device_->make_event();
  stream_->record(*before);
  std::vector<uint8_t> pageable(8);
  void* memory = device_->allocate(8);
  const auto refused = [&](const std::function<void()>& work) {
    std::string text = "no error";
    try {
      stream_->capture(work);
    } catch (const Error& error) {
      text = error.what();
    }
    return text;
  };
  EXPECT_THAT(refused([&] { stream_->synchronize(soon()); }), HasSubstr("capture synchronises"));
  EXPECT_THAT(refused([&] { stream_->copy(memory, pageable.data(), 8, CopyKind::kHostToDevice); }),
              HasSubstr("not pinned"));
  EXPECT_THAT(refused([&] { stream_->wait(*before); }), HasSubstr("of that graph"));
  EXPECT_THAT(refused([&] { stream_->capture([] {}); }), HasSubstr("begins another"));
  EXPECT_EQ(refused([&] { stream_->record(*inside); }), "no error");
  EXPECT_THAT(error_of([&] { other->wait(*inside); }, ErrorCode::kUnsupported), HasSubstr("of that graph"));
  EXPECT_THAT(error_of([&] { stream_->synchronize(*inside, soon()); }, ErrorCode::kUnsupported),
              HasSubstr("cannot be waited for"));
  stream_->synchronize(soon());  // the stream works on
  device_->release(memory, 8);
}

TEST_F(EmulatedStream, FreeingMemoryWaitsForTheWorkOnIt) {
  std::promise<void> gate;
  void* memory = device_->allocate(1 << 20);
  block(*stream_, gate);
  stream_->fill_zero(memory, 1 << 20);
  std::thread opener([&] { gate.set_value(); });
  device_->release(memory, 1 << 20);  // under ASan: not before it was filled
  opener.join();
}

TEST_F(EmulatedStream, WhatIsQueuedIsDoneBeforeTheStreamGoes) {
  int done = 0;
  for (int i = 0; i < 100; ++i) enqueue(*stream_, [&] { ++done; });
  stream_.reset();
  EXPECT_EQ(done, 100);
}

TEST(LateStreams, BeginWhenSomebodyWaits) {
  setenv("CHORALE_EMULATOR_STREAMS", "late", 1);
  const auto device = open_device(DeviceKind::kEmulator, 0);
  const auto stream = device->make_stream();
  unsetenv("CHORALE_EMULATOR_STREAMS");
  int done = 0;
  for (int i = 0; i < 100; ++i) enqueue(*stream, [&] { ++done; });
  stream->synchronize(Deadline::after(std::chrono::seconds(30)));
  EXPECT_EQ(done, 100);
}

}  // namespace
}  // namespace chorale
