#include "coordinator/engine.h"

#include "tests/unit/coordinator/engine_fixture.h"

namespace chorale::coordinator::engine_test {
namespace {

using namespace std::chrono_literals;

TEST_F(EngineTest, AnswersManyJobsAndChoicesAtOnce) {
  start({}, scripted_plan(2));
  std::vector<std::pair<JobRequest, std::shared_ptr<Reader>>> jobs;
  for (int i = 0; i < 24; ++i) {
    JobRequest request = make_request(20 + i, 30, i * 40);
    request.num_choices = 1 + i % 3;
    if (i % 4 == 0) request.stop_token_ids = {expected_answer(request)[7]};
    jobs.emplace_back(request, submit(request));
  }
  for (auto& [request, reader] : jobs) {
    ASSERT_TRUE(reader->wait_for_end());
    EXPECT_FALSE(reader->error);
    for (int choice = 0; choice < request.num_choices; ++choice) {
      const auto expected = expected_answer(request, static_cast<uint32_t>(choice));
      EXPECT_EQ(reader->tokens[static_cast<size_t>(choice)], expected);
      EXPECT_EQ(reader->finish[static_cast<size_t>(choice)],
                expected.size() < 30 ? FinishReason::kStop : FinishReason::kLength);
    }
  }
  ASSERT_TRUE(eventually([&] { return engine->stats().num_used_kv_blocks == 0; }));
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.time_to_first_token.num_observations, 48U);
  EXPECT_EQ(stats.finished_stop + stats.finished_length, 48U);
  EXPECT_EQ(stats.inter_token_latency.num_observations + 48, stats.generation_tokens);
  EXPECT_EQ(stats.stages.size(), 2U);
  EXPECT_GT(stats.stages[0].compute_seconds, 0);
}

TEST_F(EngineTest, ALostWorldEndsJobsWithItsReason) {
  script->hold();
  start();
  const auto reader = submit(make_request(8, 8));
  script->lose("rank 2 on node7 is silent");
  ASSERT_TRUE(reader->wait_for_end());
  ASSERT_TRUE(reader->error);
  EXPECT_EQ(reader->error->code, ErrorCode::kPeerLost);
  EXPECT_NE(reader->error->message.find("rank 2 on node7 is silent"), std::string::npos);
  EXPECT_EQ(refused(make_request(8, 8)).code, ErrorCode::kPeerLost);
  EXPECT_FALSE(engine->health());
}

TEST_F(EngineTest, AnAnswerThatFitsNoPlanLosesTheWorld) {
  script->lie();
  start();
  const auto reader = std::make_shared<Reader>();
  ASSERT_TRUE(eventually([&] { return !engine->health() && engine->health().failure().code == ErrorCode::kPeerLost; }));
  EXPECT_NE(engine->health().failure().message.find("answered step"), std::string::npos);
}

TEST_F(EngineTest, AFullQueueIsRefused) {
  script->hold();
  parallel::ClusterPlan plan = scripted_plan();
  plan.max_num_seqs = 1;
  EngineOptions options;
  options.max_waiting_jobs = 2;
  start(options, plan);
  std::vector<std::shared_ptr<Reader>> readers = {submit(make_request(8, 8))};
  ASSERT_TRUE(eventually([&] { return engine->stats().num_requests_running == 1; }));
  readers.push_back(submit(make_request(8, 8)));
  readers.push_back(submit(make_request(8, 8)));
  EXPECT_EQ(refused(make_request(8, 8)).code, ErrorCode::kResourceExhausted);
  script->release();
  for (auto& reader : readers) EXPECT_TRUE(reader->wait_for_end());
  EXPECT_EQ(engine->stats().rejected_queue_full, 1U);
  EXPECT_TRUE(submit(make_request(8, 8))->wait_for_end());
}

TEST_F(EngineTest, ACancelledJobHearsNothingMoreAndFreesItsBlocks) {
  script->hold();
  start();
  const auto other = submit(make_request(8, 200));
  const auto reader = submit(make_request(8, 500));
  script->allow(6);
  ASSERT_TRUE(reader->wait_for_tokens(3));
  engine->cancel(last_id);
  script->release();
  ASSERT_TRUE(other->wait_for_end());
  ASSERT_TRUE(eventually([&] { return engine->stats().num_used_kv_blocks == 0; }));
  EXPECT_LT(reader->look([](const Reader& r) { return r.num_tokens; }), 10);
  EXPECT_EQ(reader->num_ends, 0);
  EXPECT_EQ(engine->stats().finished_abort, 1U);
  engine->cancel(last_id);  // unknown by now
  engine->cancel(12345);
}

TEST_F(EngineTest, ASlowReaderPausesAloneAndGoesOn) {
  script->hold();
  start();
  const auto slow = submit(make_request(8, 400));
  script->allow(4);
  ASSERT_TRUE(slow->wait_for_tokens(2));
  slow->set_congested(true);
  script->release();
  EXPECT_TRUE(submit(make_request(9, 50))->wait_for_end());
  const int before = slow->look([](const Reader& r) { return r.num_tokens; });
  EXPECT_TRUE(submit(make_request(10, 50))->wait_for_end());
  const int after = slow->look([](const Reader& r) { return r.num_tokens; });
  EXPECT_EQ(before, after);
  EXPECT_LT(after, 400);
  slow->set_congested(false);
  engine->wake();
  ASSERT_TRUE(slow->wait_for_end());
  EXPECT_EQ(slow->tokens[0], expected_answer(make_request(8, 400)));
}

TEST_F(EngineTest, AReaderThatStaysSlowIsCancelled) {
  EngineOptions options;
  options.slow_reader_timeout = 50ms;
  script->hold();
  start(options);
  const auto slow = submit(make_request(8, 500));
  script->allow(3);
  ASSERT_TRUE(slow->wait_for_tokens(1));
  slow->set_congested(true);
  script->release();
  ASSERT_TRUE(slow->wait_for_end());
  ASSERT_TRUE(slow->error);
  EXPECT_EQ(slow->error->code, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(slow->error->message.find("reader"), std::string::npos);
}

TEST_F(EngineTest, AJobEndsAtItsDeadline) {
  script->hold();
  start();
  JobRequest request = make_request(8, 8);
  request.deadline = std::chrono::steady_clock::now() + 30ms;
  const auto reader = submit(request);
  ASSERT_TRUE(reader->wait_for_end());
  EXPECT_EQ(reader->error->code, ErrorCode::kDeadlineExceeded);
}

TEST_F(EngineTest, DrainLetsRunningJobsFinishAndRefusesNewOnes) {
  start();
  const auto reader = submit(make_request(8, 300));
  engine->drain(Deadline::after(20s));
  EXPECT_EQ(reader->num_ends, 1);
  EXPECT_FALSE(reader->error);
  EXPECT_EQ(refused(make_request(8, 8)).code, ErrorCode::kUnsupported);
  EXPECT_FALSE(engine->health());
}

TEST_F(EngineTest, DrainFailsWhatIsLeftAtItsDeadline) {
  script->hold();
  start();
  const auto reader = submit(make_request(8, 300));
  engine->drain(Deadline::after(20ms));
  EXPECT_EQ(reader->num_ends, 1);
  EXPECT_TRUE(reader->error);
}

TEST_F(EngineTest, HealthNeedsAnAnswerOfTheWorld) {
  script->hold();
  EngineOptions options;
  options.probe_interval = 10ms;
  options.health_window = 100ms;
  start(options);
  ASSERT_TRUE(script->wait_for_plans(1));
  EXPECT_FALSE(engine->health());
  script->release();
  EXPECT_TRUE(eventually([&] { return static_cast<bool>(engine->health()); }));
  const int before = script->num_plans();
  EXPECT_TRUE(script->wait_for_plans(before + 3)) << "an idle world is probed";
  script->hold();
  EXPECT_TRUE(eventually([&] { return !engine->health(); }));
  script->release();
  EXPECT_TRUE(eventually([&] { return static_cast<bool>(engine->health()); }));
}

TEST_F(EngineTest, PromptLogprobsComeBeforeTheFirstTokenAndOnlyThemForMaxTokensZero) {
  start();
  JobRequest request = make_request(300, 0);  // longer than a step
  request.prompt_logprobs = parallel::PromptLogprobs::kYes;
  const auto reader = submit(request);
  ASSERT_TRUE(reader->wait_for_end());
  EXPECT_FALSE(reader->error);
  ASSERT_EQ(reader->prompt_logprobs.size(), 299U);
  for (int i = 0; i < 299; ++i) {
    EXPECT_EQ(reader->prompt_logprobs[static_cast<size_t>(i)].position, i + 1);
    EXPECT_EQ(reader->prompt_logprobs[static_cast<size_t>(i)].token.token_id,
              request.prompt_ids[static_cast<size_t>(i) + 1]);
  }
  EXPECT_EQ(reader->num_tokens, 0);
  request.max_tokens = 5;
  request.num_choices = 3;
  const auto three = submit(request);
  ASSERT_TRUE(three->wait_for_end());
  EXPECT_EQ(three->prompt_logprobs.size(), 299U);
  EXPECT_EQ(three->num_tokens, 15);
  EXPECT_EQ(three->cached, 0);
}

TEST_F(EngineTest, ReportsCachedTokens) {
  start();
  ASSERT_TRUE(submit(make_request(64, 4))->wait_for_end());
  const auto again = submit(make_request(64, 4));
  ASSERT_TRUE(again->wait_for_end());
  EXPECT_EQ(again->cached, 48);
  const EngineStats stats = engine->stats();
  EXPECT_EQ(stats.prefix_cache_queries, 128U);
  EXPECT_EQ(stats.prefix_cache_hits, 48U);
}

TEST_F(EngineTest, CostsLittlePerToken) {
  parallel::ClusterPlan plan = scripted_plan();
  plan.num_kv_blocks = 1024;
  start({}, plan);
  std::vector<std::shared_ptr<Reader>> readers;
  for (int i = 0; i < 16; ++i) readers.push_back(submit(make_request(16, 250, i * 20)));
  for (auto& reader : readers) ASSERT_TRUE(reader->wait_for_end());
  const EngineStats stats = engine->stats();
  const double us_per_token = stats.coordinator_seconds * 1e6 / static_cast<double>(stats.generation_tokens);
  RecordProperty("us_per_token", std::to_string(us_per_token));
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
  EXPECT_LT(us_per_token, 50);
#endif
}

}  // namespace
}  // namespace chorale::coordinator::engine_test
