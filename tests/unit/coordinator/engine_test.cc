#include "coordinator/engine.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/scripted_world.h"

namespace chorale::coordinator {
namespace {

using test::oracle_token;
using test::scripted_plan;
using test::ScriptedWorld;
using test::WorldScript;
using namespace std::chrono_literals;

/// Collects a job's events; tests wait for them.
class Reader : public JobSink {
 public:
  void on_prompt_logprobs(std::vector<parallel::SampledToken> tokens) override {
    note([&] { prompt_logprobs = std::move(tokens); });
  }
  void on_token(TokenEvent event) override {
    note([&] {
      tokens[static_cast<size_t>(event.choice)].push_back(event.token.token.token_id);
      if (event.finish) finish[static_cast<size_t>(event.choice)] = event.finish;
      ++num_tokens;
    });
  }
  void on_done(int64_t num_cached_tokens) override {
    note([&] {
      ++num_ends;
      cached = num_cached_tokens;
    });
  }
  void on_error(const Failure& failure) override {
    note([&] {
      ++num_ends;
      error = failure;
    });
  }
  bool is_congested() const override {
    std::lock_guard lock(mutex_);
    return congested_;
  }

  void set_congested(bool congested) {
    note([&] { congested_ = congested; });
  }
  bool wait_for_end() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [this] { return num_ends > 0; });
  }
  bool wait_for_tokens(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return num_tokens >= count; });
  }
  template <typename F>
  auto look(F&& function) const {
    std::lock_guard lock(mutex_);
    return function(*this);
  }

  std::vector<parallel::SampledToken> prompt_logprobs;
  std::vector<std::vector<int32_t>> tokens{4};
  std::vector<std::optional<FinishReason>> finish{4};
  std::optional<Failure> error;
  int64_t cached = -1;
  int num_tokens = 0;
  int num_ends = 0;

 private:
  template <typename F>
  void note(F&& function) {
    std::lock_guard lock(mutex_);
    function();
    changed_.notify_all();
  }
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool congested_ = false;
};

JobRequest make_request(int prompt_len, int max_tokens, int32_t first_token = 1) {
  JobRequest request;
  for (int i = 0; i < prompt_len; ++i) request.prompt_ids.push_back((first_token + i) % test::kOracleVocab);
  request.max_tokens = max_tokens;
  request.sampling.seed = 5;
  return request;
}

std::vector<int32_t> expected_answer(const JobRequest& request, uint32_t choice = 0) {
  std::vector<int32_t> history = request.prompt_ids;
  std::vector<int32_t> answer;
  for (int i = 0; i < request.max_tokens; ++i) {
    answer.push_back(oracle_token(history, request.sampling.seed, choice));
    history.push_back(answer.back());
    if (std::ranges::find(request.stop_token_ids, answer.back()) != request.stop_token_ids.end()) break;
  }
  return answer;
}

class EngineTest : public testing::Test {
 protected:
  void start(EngineOptions options = {}, parallel::ClusterPlan plan = scripted_plan()) {
    engine = std::make_unique<Engine>(options, nullptr, std::make_unique<ScriptedWorld>(std::move(plan), script));
  }
  std::shared_ptr<Reader> submit(JobRequest request) {
    auto reader = std::make_shared<Reader>();
    auto id = engine->submit(std::move(request), reader);
    EXPECT_TRUE(id) << (id ? "" : id.failure().message);
    if (id) last_id = *id;
    return reader;
  }
  Failure refused(JobRequest request) {
    const auto id = engine->submit(std::move(request), std::make_shared<Reader>());
    EXPECT_FALSE(id);
    return id ? Failure{} : id.failure();
  }
  template <typename F>
  bool eventually(F&& condition) {
    const Deadline deadline = Deadline::after(10s);
    while (!deadline.expired()) {
      if (condition()) return true;
      std::this_thread::yield();
    }
    return false;
  }

  std::shared_ptr<WorldScript> script = std::make_shared<WorldScript>();
  std::unique_ptr<Engine> engine;
  JobId last_id = 0;
};

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
}  // namespace chorale::coordinator
