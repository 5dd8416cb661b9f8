#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "comm/base/device.h"
#include "comm/base/log.h"

namespace {

constexpr int kSkipped = 77;

/// Why the tests cannot run on the device that CHORALE_TEST_DEVICE names; empty when they can, or when none is named.
std::string why_not() {
  const char* name = std::getenv("CHORALE_TEST_DEVICE");
  if (name == nullptr) return {};
  const chorale::DeviceEntry* entry = chorale::DeviceRegistry::find(name);
  if (entry == nullptr) return std::string("device ") + name + " is not built in";
  const chorale::DeviceSurvey survey = entry->survey();
  return survey.num_devices > 0 ? "" : survey.problem;
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  chorale::init_log(chorale::LogLevel::kError, "test");
  if (const std::string reason = why_not(); !reason.empty()) {
    std::cout << "skipped: " << reason << "\n";
    return kSkipped;
  }
  return RUN_ALL_TESTS();
}
