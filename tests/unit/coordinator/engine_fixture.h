// An engine over a scripted world, and a reader of its jobs' events.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "coordinator/engine.h"
#include "tests/support/scripted_world.h"

namespace chorale::coordinator::engine_test {
using test::oracle_token;
using test::scripted_plan;
using test::ScriptedWorld;
using test::WorldScript;
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
    return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return num_ends > 0; });
  }
  bool wait_for_tokens(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [&] { return num_tokens >= count; });
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

inline JobRequest make_request(int prompt_len, int max_tokens, int32_t first_token = 1) {
  JobRequest request;
  for (int i = 0; i < prompt_len; ++i) request.prompt_ids.push_back((first_token + i) % test::kOracleVocab);
  request.max_tokens = max_tokens;
  request.sampling.seed = 5;
  return request;
}

inline std::vector<int32_t> expected_answer(const JobRequest& request, uint32_t choice = 0) {
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
    const Deadline deadline = Deadline::after(std::chrono::seconds(10));
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

}  // namespace chorale::coordinator::engine_test
