#include "coordinator/bench/device_gaps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "comm/base/error.h"
#include "coordinator/bench/load.h"
#include "tests/support/scripted_world.h"

namespace chorale::coordinator::bench {
namespace {

using parallel::StageReport;
using testing::ElementsAre;

StageReport report(uint64_t step, int32_t stage, uint32_t step_us, uint32_t gap_ns) {
  return {.epoch = 1,
          .step = step,
          .stage = stage,
          .compute_us = step_us - 2,
          .comm_us = 1,
          .wait_us = 1,
          .gap_ns = gap_ns};
}

TEST(GapsOf, LeavesOutTheTimeBeforeARun) {
  const DeviceGaps gaps =
      gaps_of({report(9, 0, 100, 5000), report(8, 0, 100, 4'000'000'000), report(10, 0, 100, 45000)});
  EXPECT_THAT(gaps.gaps_us, ElementsAre(5, 45));
  EXPECT_NEAR(gaps.idle_share(), 50.0 / 250, 1e-12);
}

TEST(GapsOf, CountsEveryStage) {
  DeviceGaps gaps =
      gaps_of({report(1, 0, 10, 77), report(1, 1, 10, 88), report(2, 1, 10, 3000), report(2, 0, 10, 1000)});
  EXPECT_THAT(gaps.gaps_us, ElementsAre(1, 3));
  gaps.add(gaps_of({report(3, 0, 10, 99), report(4, 0, 10, 6000)}));
  EXPECT_THAT(gaps.gaps_us, ElementsAre(1, 3, 6));
  EXPECT_NEAR(gaps.idle_share(), 10.0 / 40, 1e-12);
}

TEST(GapsOf, IsEmptyWhereNoDeviceReported) {
  const DeviceGaps gaps = gaps_of({report(1, 0, 10, StageReport::kNoGap), report(2, 0, 10, StageReport::kNoGap)});
  EXPECT_TRUE(gaps.gaps_us.empty());
  EXPECT_EQ(gaps.idle_share(), 0);
}

TEST(ReportLog, WaitsForTheLastReportOfEveryStage) {
  ReportLog log;
  log.add(report(1, 0, 10, 0));
  log.add(report(1, 1, 10, 0));
  log.add(report(2, 0, 10, 0));
  EXPECT_THROW(log.take(2, 2, Deadline::after(std::chrono::milliseconds(1))), Error);
  std::thread late([&] { log.add(report(2, 1, 10, 0)); });
  EXPECT_EQ(log.take(2, 2, Deadline::after(std::chrono::seconds(60))).size(), 4u);
  late.join();
  EXPECT_TRUE(log.take(2, 2, Deadline::after(std::chrono::seconds(60))).empty());
}

TEST(ReportLog, HearsOfEveryStepOfAnEngine) {
  const auto script = std::make_shared<test::WorldScript>();
  ReportLog log;
  EngineOptions options;
  options.on_stage_report = [&](const StageReport& stage_report) { log.add(stage_report); };
  Engine engine(options, nullptr, std::make_unique<test::ScriptedWorld>(test::scripted_plan(), script));
  run_load(engine, {.streams = 2, .prompt_tokens = 5, .new_tokens = 4});
  const EngineStats stats = engine.stats();
  EXPECT_GE(log.take(1, stats.last_step, Deadline::after(std::chrono::seconds(60))).size(), stats.num_steps);
}

}  // namespace
}  // namespace chorale::coordinator::bench
