#include "coordinator/bench/load.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <random>

#include "comm/base/error.h"

namespace chorale::coordinator::bench {
namespace {

using Clock = std::chrono::steady_clock;

/// Streams that have not ended; the bench's thread waits on it.
class Countdown {
 public:
  explicit Countdown(int count) : left_(count) {}
  void end_one(const Failure* failure) {
    const std::lock_guard lock(mutex_);
    if (failure != nullptr && !failure_) failure_ = *failure;
    --left_;
    changed_.notify_all();
  }
  /// Until all ended or one failed: the engine sees to it that one of both comes.
  std::optional<Failure> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return left_ == 0 || failure_; });
    return failure_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int left_;
  std::optional<Failure> failure_;
};

/// Thread: written by the engine's, read after the countdown.
class StampingSink : public JobSink {
 public:
  StampingSink(std::shared_ptr<Countdown> countdown, int num_tokens) : countdown_(std::move(countdown)) {
    stamps_.reserve(static_cast<size_t>(num_tokens));
  }
  const std::vector<Clock::time_point>& stamps() const { return stamps_; }

  void on_prompt_logprobs(std::vector<parallel::SampledToken> /*tokens*/) override {}
  void on_token(TokenEvent /*event*/) override { stamps_.push_back(Clock::now()); }
  void on_done(int64_t /*num_cached_tokens*/) override { countdown_->end_one(nullptr); }
  void on_error(const Failure& failure) override { countdown_->end_one(&failure); }
  bool is_congested() const override { return false; }

 private:
  std::shared_ptr<Countdown> countdown_;  // shared: a failed run leaves while other jobs still end
  std::vector<Clock::time_point> stamps_;
};

JobRequest make_job(const LoadShape& shape, int64_t vocab_size, std::mt19937_64& random) {
  JobRequest job;
  job.request_id = "bench";
  std::uniform_int_distribution<int32_t> ids(0, static_cast<int32_t>(vocab_size - 1));
  for (int i = 0; i < shape.prompt_tokens; ++i) job.prompt_ids.push_back(ids(random));
  job.max_tokens = shape.new_tokens;
  job.sampling.temperature = 0;
  job.ignore_eos = IgnoreEos::kYes;
  return job;
}

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

}  // namespace

LoadTimes run_load(Engine& engine, const LoadShape& shape) {
  std::mt19937_64 random(shape.seed);
  std::vector<JobRequest> jobs;
  for (int i = 0; i < shape.streams; ++i) jobs.push_back(make_job(shape, engine.plan().config.vocab_size, random));
  const auto countdown = std::make_shared<Countdown>(shape.streams);
  std::vector<std::shared_ptr<StampingSink>> sinks;
  const auto start = Clock::now();
  for (JobRequest& job : jobs) {
    sinks.push_back(std::make_shared<StampingSink>(countdown, shape.new_tokens));
    const Result<JobId> id = engine.submit(std::move(job), sinks.back());
    if (!id) throw Error(id.failure().code, id.failure().message);
  }
  if (const auto failure = countdown->wait()) throw Error(failure->code, failure->message);
  LoadTimes times;
  times.seconds = seconds_between(start, Clock::now());
  for (const auto& sink : sinks)
    for (size_t i = 1; i < sink->stamps().size(); ++i)
      times.token_gaps_ms.push_back(1e3 * seconds_between(sink->stamps()[i - 1], sink->stamps()[i]));
  return times;
}

RunCosts costs_of(const EngineStats& before, const EngineStats& after, double wall_seconds, int64_t num_tokens) {
  CHECK_EQ(before.stages.size(), after.stages.size());
  double compute = 0, comm = 0, last_stage = 0;
  for (size_t stage = 0; stage < after.stages.size(); ++stage) {
    const StageStats& a = before.stages[stage];
    const StageStats& b = after.stages[stage];
    compute += b.compute_seconds - a.compute_seconds;
    comm += b.comm_seconds - a.comm_seconds;
    last_stage =
        b.compute_seconds - a.compute_seconds + b.comm_seconds - a.comm_seconds + b.wait_seconds - a.wait_seconds;
  }
  RunCosts costs;
  const double busy = compute + comm;
  if (busy > 0) costs.comm_share = comm / busy;
  costs.bubble = 1 - busy / (static_cast<double>(after.stages.size()) * wall_seconds);
  const double us_per_token = 1e6 / static_cast<double>(num_tokens);
  costs.overhead_us_per_token = (wall_seconds - last_stage) * us_per_token;
  costs.coordinator_us_per_token = (after.coordinator_seconds - before.coordinator_seconds) * us_per_token;
  return costs;
}

}  // namespace chorale::coordinator::bench
