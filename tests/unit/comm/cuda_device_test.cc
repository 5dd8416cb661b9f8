// What every Device promises, on the emulator or, with CHORALE_TEST_DEVICE=cuda, on a GPU; and what the survey of GPUs
// makes of the runtime's answers, which needs none.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "comm/base/device.h"
#ifdef CHORALE_HAS_CUDA
#include <cuda_runtime_api.h>

#include "comm/cuda/cuda_survey.h"
#endif

namespace chorale {
namespace {

class CudaDevice : public testing::Test {
 protected:
  static std::unique_ptr<Device> open() {
    const char* name = std::getenv("CHORALE_TEST_DEVICE");
    return open_device(name == nullptr ? DeviceKind::kEmulator : device_kind_from_string(name), 0);
  }
  static Deadline soon() { return Deadline::after(std::chrono::seconds(30)); }
  std::vector<uint8_t> download(const void* memory, size_t bytes) {
    std::vector<uint8_t> host(bytes, 0xEE);
    stream_->copy(host.data(), memory, bytes, CopyKind::kDeviceToHost);
    stream_->synchronize(soon());
    return host;
  }
  std::unique_ptr<Device> device_ = open();
  std::unique_ptr<Stream> stream_ = device_->make_stream();
};

TEST_F(CudaDevice, MemoryIsZeroedAndAlignedAgainAndAgain) {
  for (size_t bytes : {size_t{1}, size_t{4097}, size_t{3} << 20}) {
    for (int round = 0; round < 2; ++round) {
      void* memory = device_->allocate(bytes);
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 256, 0u);
      EXPECT_EQ(download(memory, bytes), std::vector<uint8_t>(bytes, 0));
      const std::vector<uint8_t> dirt(bytes, 0xAB);
      stream_->copy(memory, dirt.data(), bytes, CopyKind::kHostToDevice);
      EXPECT_EQ(download(memory, bytes), dirt);
      device_->release(memory, bytes);
    }
  }
}

TEST_F(CudaDevice, AnOtherThreadMayAllocateAndCopy) {
  std::vector<uint8_t> got;
  std::thread([&] {
    void* memory = device_->allocate(100);
    got = download(memory, 100);
    device_->release(memory, 100);
  }).join();
  EXPECT_EQ(got, std::vector<uint8_t>(100, 0));
}

TEST_F(CudaDevice, TooMuchMemorySaysWhatToLower) {
  if (device_->kind() != DeviceKind::kCuda) GTEST_SKIP() << "hosts may promise any memory";
  const size_t too_much = size_t{1} << 46;
  try {
    device_->release(device_->allocate(too_much), too_much);
    FAIL() << "64 TiB were given out";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(std::string(error.what()).find(std::to_string(too_much)), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("--kv-cache-memory-bytes"), std::string::npos) << error.what();
  }
  void* memory = device_->allocate(8);
  EXPECT_EQ(download(memory, 8), std::vector<uint8_t>(8, 0)) << "the device works on afterwards";
  device_->release(memory, 8);
}

TEST_F(CudaDevice, CopiesThroughPinnedMemoryKeepTheirOrder) {
  constexpr size_t kBytes = size_t{1} << 20;
  PinnedBuffer pinned(*device_, kBytes);
  void* a = device_->allocate(kBytes);
  void* b = device_->allocate(kBytes);
  for (size_t i = 0; i < kBytes; ++i) pinned.data()[i] = static_cast<std::byte>(i * 7);
  stream_->copy(a, pinned.data(), kBytes, CopyKind::kHostToDevice);
  stream_->copy(b, a, kBytes, CopyKind::kDeviceToDevice);
  stream_->fill_zero(a, kBytes / 2);
  const std::vector<uint8_t> in_a = download(a, kBytes), in_b = download(b, kBytes);
  EXPECT_EQ(std::memcmp(in_b.data(), pinned.data(), kBytes), 0);
  EXPECT_EQ(std::vector<uint8_t>(in_a.begin(), in_a.begin() + kBytes / 2), std::vector<uint8_t>(kBytes / 2, 0));
  EXPECT_EQ(std::memcmp(in_a.data() + kBytes / 2, pinned.data() + kBytes / 2, kBytes / 2), 0);
  device_->release(a, kBytes);
  device_->release(b, kBytes);
}

TEST_F(CudaDevice, AnEventOrdersTwoStreams) {
  constexpr size_t kBytes = size_t{64} << 20;  // long enough to be overtaken
  const auto second = device_->make_stream();
  const auto event = device_->make_event();
  PinnedBuffer ones(*device_, kBytes), answer(*device_, 1);
  std::memset(ones.data(), 1, kBytes);
  void* memory = device_->allocate(kBytes);
  stream_->copy(memory, ones.data(), kBytes, CopyKind::kHostToDevice);
  stream_->record(*event);
  second->wait(*event);
  second->copy(answer.data(), static_cast<std::byte*>(memory) + kBytes - 1, 1, CopyKind::kDeviceToHost);
  second->synchronize(soon());
  EXPECT_EQ(answer.data()[0], std::byte{1});
  stream_->synchronize(*event, soon());
  device_->release(memory, kBytes);
}

TEST_F(CudaDevice, AGraphRepeatsItsWork) {
  PinnedBuffer in(*device_, 64), out(*device_, 64);
  void* memory = device_->allocate(64);
  const auto graph = stream_->capture([&] {
    stream_->copy(memory, in.data(), 64, CopyKind::kHostToDevice);
    stream_->copy(out.data(), memory, 64, CopyKind::kDeviceToHost);
  });
  for (int round = 1; round < 4; ++round) {
    std::memset(in.data(), round, 64);
    std::memset(out.data(), 0, 64);
    graph->launch(*stream_);
    stream_->synchronize(soon());
    EXPECT_EQ(std::memcmp(in.data(), out.data(), 64), 0) << round;
  }
  device_->release(memory, 64);
}

TEST_F(CudaDevice, AStreamWorksOnAfterACaptureThatThrew) {
  PinnedBuffer ones(*device_, 16);
  std::memset(ones.data(), 1, 16);
  void* memory = device_->allocate(16);
  const auto refuse = [&] {
    stream_->copy(memory, ones.data(), 16, CopyKind::kHostToDevice);
    EXPECT_TRUE(stream_->is_capturing());
    fail(ErrorCode::kUnsupported, "not this");
  };
  EXPECT_THROW(stream_->capture(refuse), Error);
  EXPECT_FALSE(stream_->is_capturing());
  EXPECT_EQ(download(memory, 16), std::vector<uint8_t>(16, 0)) << "what was recorded was done";
  const auto graph = stream_->capture([&] { stream_->copy(memory, ones.data(), 16, CopyKind::kHostToDevice); });
  graph->launch(*stream_);
  stream_->synchronize(soon());
  EXPECT_EQ(download(memory, 16), std::vector<uint8_t>(16, 1));
  device_->release(memory, 16);
}

TEST_F(CudaDevice, APassedDeadlineIsAnErrorWhileThereIsWork) {
  if (device_->kind() != DeviceKind::kCuda) GTEST_SKIP() << "emulator_device_test.cc has its own";
  constexpr size_t kBytes = size_t{1} << 30;
  void* memory = device_->allocate(kBytes);
  for (int i = 0; i < 200; ++i) stream_->fill_zero(memory, kBytes);  // tens of milliseconds
  try {
    stream_->synchronize(Deadline::after(std::chrono::nanoseconds(0)));
    FAIL() << "200 GiB were written in no time";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
  }
  stream_->synchronize(soon());
  device_->release(memory, kBytes);
}

TEST_F(CudaDevice, TellsItsFacts) {
  EXPECT_FALSE(device_->name().empty());
  EXPECT_LE(device_->memory().free_bytes, device_->memory().total_bytes);
  const DeviceEntry* entry = DeviceRegistry::find(to_string(device_->kind()));
  if (entry->facts == nullptr) return;
  const auto facts = entry->facts(0);
  ASSERT_TRUE(facts) << facts.failure().message;
  EXPECT_EQ(facts->arithmetic, device_->arithmetic());
  EXPECT_EQ(facts->arithmetic, "sm_" + std::to_string(facts->compute_capability));
  EXPECT_GE(facts->num_multiprocessors, 1);
  EXPECT_EQ(facts->peer_access.at(0), 1);
}

#ifdef CHORALE_HAS_CUDA
TEST(GpuSurvey, TellsApartNoDriverNoDeviceAndATooOldDriver) {
  const DeviceSurvey no_driver = interpret_survey(cudaErrorInsufficientDriver, 0, 0);
  EXPECT_EQ(no_driver.absence, DeviceAbsence::kNoDriver);
  const DeviceSurvey too_old = interpret_survey(cudaErrorInsufficientDriver, 0, 12020);
  EXPECT_EQ(too_old.absence, DeviceAbsence::kDriverTooOld);
  EXPECT_NE(too_old.problem.find("CUDA 12.2"), std::string::npos) << too_old.problem;
  const DeviceSurvey no_device = interpret_survey(cudaErrorNoDevice, 0, CUDART_VERSION);
  EXPECT_EQ(no_device.absence, DeviceAbsence::kNoDevice);
  const DeviceSurvey fabric = interpret_survey(cudaErrorSystemNotReady, 0, CUDART_VERSION);
  EXPECT_EQ(fabric.absence, DeviceAbsence::kBroken);
  EXPECT_NE(fabric.advice.find("fabricmanager"), std::string::npos);
  for (const DeviceSurvey& survey : {no_driver, too_old, no_device, fabric}) {
    EXPECT_EQ(survey.num_devices, 0);
    EXPECT_FALSE(survey.problem.empty() || survey.advice.empty());
  }
  EXPECT_EQ(interpret_survey(cudaSuccess, 3, CUDART_VERSION).num_devices, 3);
}

TEST(GpuSurvey, OpeningWithoutADeviceSaysWhyAndWhatToDo) {
  const DeviceSurvey survey = survey_gpus();
  if (survey.num_devices > 0) GTEST_SKIP() << "there is a GPU here";
  try {
    open_device(DeviceKind::kCuda, 0);
    FAIL() << "a device was opened";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find(survey.advice), std::string::npos) << error.what();
  }
}
#endif

}  // namespace
}  // namespace chorale
