// A job service that plays the engine: one thread, one token a job in turn, as a prompt's first id says. No model and
// no world.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "coordinator/api/job_service.h"

namespace chorale::test {

using coordinator::JobId;
using coordinator::JobRequest;
using coordinator::JobSink;

class ScriptedJobs : public coordinator::api::JobService {
 public:
  static constexpr int32_t kHang = 0;        // first prompt id: no token ever comes
  static constexpr int32_t kFailAtOnce = 1;  // the world is lost before the first token
  static constexpr int32_t kFailLater = 2;   // ... and after three tokens
  static constexpr int32_t kWide = 3;        // every token has 4 KiB of text
  static constexpr int32_t kWait = 4;        // nothing before let_go() or fail_waiting()

  ScriptedJobs() : thread_([this] { run(); }) {}
  ~ScriptedJobs() override {
    {
      const auto turn = take_turn();
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  Result<JobId> submit(JobRequest request, std::shared_ptr<JobSink> sink) override {
    const auto turn = take_turn();
    if (lost_) return Failure{ErrorCode::kPeerLost, "the world is lost", ""};
    if (jobs_.size() >= max_jobs_) return Failure{ErrorCode::kResourceExhausted, "the queue holds its most jobs", ""};
    const JobId id = ++last_id_;
    last_request_ = request;
    jobs_.emplace(id, Job{std::move(request), std::move(sink), 0, false});
    changed_.notify_all();
    return id;
  }
  void cancel(JobId id) override {
    const auto turn = take_turn();
    num_cancelled_ += static_cast<int>(jobs_.erase(id));
    changed_.notify_all();
  }
  void wake() override {
    const auto turn = take_turn();
    ++num_wakes_;
    changed_.notify_all();
  }
  Result<std::string> health() const override {
    const auto turn = take_turn();
    if (lost_) return Failure{ErrorCode::kPeerLost, "the world is lost", ""};
    return std::string("all is well");
  }
  coordinator::EngineStats stats() const override {
    const auto turn = take_turn();
    coordinator::EngineStats stats;
    stats.num_requests_running = static_cast<int>(jobs_.size());
    stats.finished_abort = static_cast<uint64_t>(num_cancelled_);
    stats.stages.resize(2);
    stats.time_to_first_token.observe(0.03);
    return stats;
  }

  void hold() { set_wait(Wait::kOn); }
  void let_go() { set_wait(Wait::kOver); }
  void fail_waiting() { set_wait(Wait::kFailed); }
  void set_max_jobs(size_t max_jobs) {
    const auto turn = take_turn();
    max_jobs_ = max_jobs;
  }
  void set_lost(bool lost) {
    const auto turn = take_turn();
    lost_ = lost;
  }
  JobRequest last_request() {
    const auto turn = take_turn();
    return last_request_;
  }
  int num_wakes() {
    const auto turn = take_turn();
    return num_wakes_;
  }
  bool wait_for_jobs(size_t count) {
    return wait([&] { return jobs_.size() == count; });
  }
  bool wait_for_cancelled(int count) {
    return wait([&] { return num_cancelled_ == count; });
  }
  /// Waits until some job's reader has been too slow.
  bool wait_for_congestion() {
    return wait([&] {
      return std::any_of(jobs_.begin(), jobs_.end(), [](const auto& job) { return job.second.was_congested; });
    });
  }

 private:
  enum class Wait { kOn, kOver, kFailed };
  void set_wait(Wait wait) {
    const auto turn = take_turn();
    wait_ = wait;
    changed_.notify_all();
  }
  struct Job {
    JobRequest request;
    std::shared_ptr<JobSink> sink;
    int32_t num_tokens = 0;
    bool was_congested = false;
  };

  template <typename Condition>
  bool wait(Condition condition) {
    std::unique_lock lock = take_turn();
    return changed_.wait_for(lock, std::chrono::seconds(20), condition);
  }

  /// The mutex, for everybody but the thread that plays: that one gives tokens without a pause, and would take the
  /// mutex again before others wake.
  std::unique_lock<std::mutex> take_turn() const {
    ++num_waiting_;
    std::unique_lock lock(mutex_);
    if (--num_waiting_ == 0) nobody_waits_.notify_one();
    return lock;
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      nobody_waits_.wait(lock, [this] { return num_waiting_ == 0; });
      bool progress = false;
      for (auto it = jobs_.begin(); it != jobs_.end();) {
        const bool ended = step(it->second, progress);
        it = ended ? jobs_.erase(it) : std::next(it);
        if (ended) changed_.notify_all();
      }
      // As the engine does, a congested reader is looked at again soon even without a wake.
      if (!progress) changed_.wait_for(lock, std::chrono::milliseconds(20));
    }
  }

  /// One token of each choice. True when the job ended.
  bool step(Job& job, bool& progress) {
    const int32_t kind = job.request.prompt_ids.front();
    if (kind == kHang || (kind == kWait && wait_ == Wait::kOn)) return false;
    if (job.sink->is_congested()) {
      if (!job.was_congested) changed_.notify_all();
      job.was_congested = true;
      return false;
    }
    progress = true;
    if (kind == kFailAtOnce || (kind == kWait && wait_ == Wait::kFailed) ||
        (kind == kFailLater && job.num_tokens == 3)) {
      job.sink->on_error(Failure{ErrorCode::kPeerLost, "the world was lost: rank 1 left", ""});
      return true;
    }
    if (job.num_tokens == 0 && job.request.prompt_logprobs == parallel::PromptLogprobs::kYes) report_prompt(job);
    if (job.num_tokens < job.request.max_tokens) {
      ++job.num_tokens;
      for (int choice = 0; choice < job.request.num_choices; ++choice) report_token(job, choice);
    }
    if (job.num_tokens < job.request.max_tokens) return false;
    job.sink->on_done(4);
    return true;
  }

  void report_prompt(const Job& job) {
    std::vector<parallel::SampledToken> tokens;
    for (size_t i = 1; i < job.request.prompt_ids.size(); ++i)
      tokens.push_back({0, static_cast<int32_t>(i), {job.request.prompt_ids[i], -0.5f}, {}});
    job.sink->on_prompt_logprobs(std::move(tokens));
  }

  /// Tokens are a, b, c, ...; each has as many alternatives as were asked for.
  void report_token(const Job& job, int choice) {
    const int32_t id = 'a' + (job.num_tokens - 1) % 26;
    coordinator::TokenEvent event;
    event.choice = choice;
    event.token.token = {id, -0.25f};
    for (int32_t i = 0; i < job.request.sampling.num_top_logprobs; ++i)
      event.token.top.push_back({id + i, -0.25f - static_cast<float>(i)});
    event.text =
        job.request.prompt_ids.front() == kWide ? std::string(4096, 'x') : std::string(1, static_cast<char>(id));
    if (job.num_tokens == job.request.max_tokens) event.finish = coordinator::FinishReason::kLength;
    job.sink->on_token(std::move(event));
  }

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  mutable std::condition_variable nobody_waits_;
  mutable std::atomic<int> num_waiting_ = 0;  // in take_turn
  std::map<JobId, Job> jobs_;
  JobRequest last_request_;
  JobId last_id_ = 0;
  size_t max_jobs_ = 1000;
  int num_cancelled_ = 0;
  int num_wakes_ = 0;
  bool lost_ = false;
  Wait wait_ = Wait::kOn;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace chorale::test
