// The yardsticks of devices: that they are measured and give back what they took, not how large they are.
#include "worker/device_probe.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/unit/worker/device_test_support.h"

namespace chorale::worker {
namespace {

void expect_speed(const DeviceSpeed& speed, const std::string& by) {
  EXPECT_GT(speed.copy_gbps, 0);
  EXPECT_GT(speed.bf16_gops, 0);
  EXPECT_EQ(speed.bf16_by.substr(0, by.size()), by);
}

TEST(CudaDeviceProbe, MeasuresBothYardsticksAndGivesBackItsMemory) {
  const auto device = open_device(test_device_kind(), 0);
  const auto stream = device->make_stream();
  const uint64_t free_before = device->memory().free_bytes;
  const DeviceSpeed speed = measure_device({device.get(), stream.get()}, probe_sizes(device->kind()));
  expect_speed(speed, device->kind() == DeviceKind::kCuda ? "" : "own");
  if (device->kind() == DeviceKind::kCuda) {  // the libraries keep some for themselves
    EXPECT_GE(device->memory().free_bytes + (uint64_t{256} << 20), free_before);
    EXPECT_GT(speed.copy_gbps, 50);  // any GPU with tensor cores for bf16
    EXPECT_GT(speed.bf16_gops, 5e3);
  }
}

/// The program looks for the library once: in a process of its own.
void measure_with(const std::string& name, const std::string& by) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("CHORALE_CUBLASLT_PATH", (std::string(CHORALE_FAKE_LIBRARIES) + "/libfake_" + name + ".so").c_str(), 1);
        set_compute_thread_fp_state();
        expect_speed(measure_device(DeviceKind::kEmulator, 0), by);
        _exit(testing::Test::HasFailure() ? 1 : 0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(DeviceProbeDeathTest, MultipliesByTheLibraryWhereThereIsOne) { measure_with("right", "cublaslt-13.1.0"); }
TEST(DeviceProbeDeathTest, MultipliesByItselfWhereTheLibraryIsUnfit) { measure_with("missing", "own"); }

}  // namespace
}  // namespace chorale::worker
