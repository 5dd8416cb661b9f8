// Jobs that the engine does not run to their end, and how they hear of it.
#include <new>

#include "tests/unit/coordinator/engine_fixture.h"

namespace chorale::coordinator::engine_test {
namespace {

using namespace std::chrono_literals;

TEST_F(EngineTest, RefusesWhatCanNotWork) {
  start();
  EXPECT_EQ(refused(make_request(0, 5)).param, "prompt");
  EXPECT_EQ(refused(make_request(500, 13)).param, "max_tokens");
  EXPECT_EQ(refused(make_request(5, -1)).param, "max_tokens");
  JobRequest no_choices = make_request(5, 5);
  no_choices.num_choices = 0;
  EXPECT_EQ(refused(no_choices).param, "n");
  JobRequest with_stop = make_request(5, 5);
  with_stop.stop = {"x"};
  EXPECT_EQ(refused(with_stop).param, "stop");  // no tokenizer
}

/// A tokenizer's stream that says nothing.
class Silence : public TextStream {
 public:
  std::string push(int32_t /*token_id*/) override { return {}; }
  std::string finish() override { return {}; }
};

TEST_F(EngineTest, AJobThatCanNotBeStartedEndsAloneWithAnError) {
  EngineOptions options;
  int num_streams = 0;
  options.make_text = [&num_streams](std::span<const int32_t> prompt) -> std::unique_ptr<TextStream> {
    if (prompt.size() == 7 && ++num_streams == 3) throw std::bad_alloc();
    return std::make_unique<Silence>();
  };
  script->hold();
  start(options);
  const auto running = submit(make_request(8, 20));
  JobRequest request = make_request(7, 20);
  request.num_choices = 4;
  const auto broken = submit(request);
  ASSERT_TRUE(broken->wait_for_end());
  ASSERT_TRUE(broken->error);
  EXPECT_EQ(broken->error->code, ErrorCode::kSystem);
  EXPECT_NE(broken->error->message.find("could not be started: std::bad_alloc"), std::string::npos);
  script->release();
  ASSERT_TRUE(running->wait_for_end());
  EXPECT_EQ(running->tokens[0], expected_answer(make_request(8, 20)));
  EXPECT_TRUE(engine->health()) << "the world lives on";
  EXPECT_TRUE(eventually([&] { return engine->stats().num_requests_waiting == 0; }));
  engine->drain(Deadline::after(10s));  // at once: no job is left
  EXPECT_EQ(broken->num_ends, 1);
  EXPECT_EQ(broken->num_tokens, 0);
}

TEST_F(EngineTest, DestructionFailsRunningJobsAndStopsTheWorld) {
  script->hold();
  start();
  const auto reader = submit(make_request(8, 8));
  engine.reset();
  EXPECT_TRUE(reader->error);
  EXPECT_TRUE(script->is_stopped());
}

}  // namespace
}  // namespace chorale::coordinator::engine_test
