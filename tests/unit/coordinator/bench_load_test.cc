#include "coordinator/bench/load.h"

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "tests/support/scripted_world.h"

namespace chorale::coordinator::bench {
namespace {

using test::scripted_plan;
using test::ScriptedWorld;
using test::WorldScript;

TEST(RunLoad, TimesEveryTokenOfEveryStream) {
  const auto script = std::make_shared<WorldScript>();
  Engine engine({}, nullptr, std::make_unique<ScriptedWorld>(scripted_plan(), script));
  const LoadTimes times = run_load(engine, {.streams = 3, .prompt_tokens = 5, .new_tokens = 4});
  EXPECT_GT(times.seconds, 0);
  ASSERT_EQ(times.token_gaps_ms.size(), 3u * (4 - 1));
  for (const double gap : times.token_gaps_ms) EXPECT_GE(gap, 0);
  EXPECT_EQ(engine.stats().prompt_tokens, 3u * 5);
  EXPECT_EQ(engine.stats().generation_tokens, 3u * 4);  // EOS or not
}

TEST(RunLoad, ThrowsWhatTheEngineRefuses) {
  const auto script = std::make_shared<WorldScript>();
  Engine engine({}, nullptr, std::make_unique<ScriptedWorld>(scripted_plan(), script));
  const int too_long = static_cast<int>(engine.plan().max_model_len) + 1;
  EXPECT_THROW(run_load(engine, {.streams = 1, .prompt_tokens = too_long, .new_tokens = 1}), Error);
}

TEST(RunLoad, EndsWhenTheWorldIsLost) {
  const auto script = std::make_shared<WorldScript>();
  Engine engine({}, nullptr, std::make_unique<ScriptedWorld>(scripted_plan(), script));
  script->lose("a rank went away");
  try {
    run_load(engine, {.streams = 2, .prompt_tokens = 1, .new_tokens = 4});
    FAIL() << "a lost world gave times";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  }
}

}  // namespace
}  // namespace chorale::coordinator::bench
