// What doctor says of GPUs, over made-up surveys: a host without one is no failure, each kind of absence has its words.
#include <gtest/gtest.h>

#include "coordinator/commands/doctor_gpus.h"

namespace chorale::coordinator {
namespace {

DeviceSurvey two_devices() { return {.num_devices = 2}; }
Result<DeviceFacts> healthy(int) {
  return DeviceFacts{.name = "NVIDIA H200",
                     .arithmetic = "sm_90",
                     .num_multiprocessors = 132,
                     .memory = {uint64_t{138} << 30, uint64_t{140} << 30},
                     .driver = "CUDA 13.0, 580.82",
                     .runtime = "CUDA 13.0",
                     .peer_access = {1, 1},
                     .num_nvlinks = 18};
}

TEST(DoctorGpus, OneLineAndNoFailureWithoutSupportOrDriver) {
  const auto built_without = check_gpus(nullptr, {});
  ASSERT_EQ(built_without.size(), 1u);
  EXPECT_EQ(built_without[0].verdict, Verdict::kOk);
  EXPECT_NE(built_without[0].fact.find("without GPU support"), std::string::npos);

  const DeviceEntry no_driver{
      "cuda", DeviceKind::kCuda, [] {
        return DeviceSurvey{.absence = DeviceAbsence::kNoDriver, .problem = "no NVIDIA driver", .advice = "install it"};
      }};
  const auto findings = check_gpus(&no_driver, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].verdict, Verdict::kOk);
  EXPECT_EQ(findings[0].fact, "no NVIDIA driver: the CPU computes");
  EXPECT_EQ(findings[0].advice, "install it");
}

TEST(DoctorGpus, ShowsLibrariesWithoutAGpuToo) {
  const DeviceEntry no_driver{"cuda", DeviceKind::kCuda,
                              [] { return DeviceSurvey{.absence = DeviceAbsence::kNoDriver, .problem = "none"}; }};
  const LibraryEntry libraries[] = {{"here", "",
                                     [] {
                                       return Result<LibraryFacts>(LibraryFacts{"/x/libhere.so", "1.2"});
                                     }},
                                    {"absent", "MPI serves",
                                     []() -> Result<LibraryFacts> {
                                       return Failure{ErrorCode::kNotFound, "not found", ""};
                                     }},
                                    {"broken", "MPI serves", []() -> Result<LibraryFacts> {
                                       return Failure{ErrorCode::kUnsupported, "/x/libbroken.so: too old", ""};
                                     }}};
  for (const DeviceEntry* gpus : {&no_driver, static_cast<const DeviceEntry*>(nullptr)}) {
    const auto findings = check_gpus(gpus, libraries);
    ASSERT_EQ(findings.size(), 4u);
    EXPECT_EQ(findings[1].fact, "1.2 in /x/libhere.so");
    EXPECT_EQ(findings[2].verdict, Verdict::kOk) << "nobody misses it";
    EXPECT_EQ(findings[2].advice, "");
    EXPECT_EQ(findings[3].verdict, Verdict::kWarn);
    EXPECT_EQ(findings[3].fact, "/x/libbroken.so: too old");
  }
}

TEST(DoctorGpus, AnOldDriverIsAWarning) {
  const DeviceEntry old{
      "cuda", DeviceKind::kCuda,
      [] { return DeviceSurvey{.absence = DeviceAbsence::kDriverTooOld, .problem = "old", .advice = "new"}; }};
  const auto findings = check_gpus(&old, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].verdict, Verdict::kWarn);
}

TEST(DoctorGpus, ShowsDevicesLinksPeersAndLibraries) {
  const DeviceEntry gpus{"cuda", DeviceKind::kCuda, two_devices, nullptr, healthy};
  const LibraryEntry libraries[] = {{"cuBLASLt", "ours serves",
                                     [] {
                                       return Result<LibraryFacts>(LibraryFacts{"/x/libcublasLt.so.13", "13.1.0"});
                                     }},
                                    {"NCCL", "MPI serves", []() -> Result<LibraryFacts> {
                                       return Failure{ErrorCode::kNotFound, "not found", ""};
                                     }}};
  const auto findings = check_gpus(&gpus, libraries);
  ASSERT_EQ(findings.size(), 5u);
  EXPECT_EQ(findings[0].fact, "2 here, driver for CUDA 13.0, 580.82, built with CUDA 13.0");
  EXPECT_EQ(findings[1].subject, "gpu 0");
  EXPECT_EQ(
      findings[1].fact,
      "NVIDIA H200, sm_90, 132 multiprocessors, 138.0 of 140.0 GiB free, 18 NVLinks, peer access to all 1 others");
  EXPECT_EQ(findings[3].fact, "13.1.0 in /x/libcublasLt.so.13");
  EXPECT_EQ(findings[4].verdict, Verdict::kWarn);
  EXPECT_EQ(findings[4].advice, "MPI serves");
}

TEST(DoctorGpus, AFullOrUnreachableOrBrokenDeviceIsTold) {
  const DeviceEntry full{"cuda", DeviceKind::kCuda, two_devices, nullptr, [](int i) {
                           auto facts = healthy(i);
                           facts->memory.free_bytes = 1;
                           return facts;
                         }};
  EXPECT_EQ(check_gpus(&full, {})[1].verdict, Verdict::kWarn);
  const DeviceEntry apart{"cuda", DeviceKind::kCuda, two_devices, nullptr, [](int i) {
                            auto facts = healthy(i);
                            facts->peer_access = {static_cast<uint8_t>(i == 0), static_cast<uint8_t>(i == 1)};
                            return facts;
                          }};
  const Finding finding = check_gpus(&apart, {})[2];
  EXPECT_EQ(finding.verdict, Verdict::kWarn);
  EXPECT_NE(finding.fact.find("no peer access to 0"), std::string::npos) << finding.fact;
  const DeviceEntry broken{"cuda", DeviceKind::kCuda, two_devices, nullptr, [](int) -> Result<DeviceFacts> {
                             return Failure{ErrorCode::kSystem, "cudaSetDevice failed", ""};
                           }};
  const auto findings = check_gpus(&broken, {});
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].verdict, Verdict::kFail);
  EXPECT_EQ(findings[0].fact, "cudaSetDevice failed");
}

}  // namespace
}  // namespace chorale::coordinator
