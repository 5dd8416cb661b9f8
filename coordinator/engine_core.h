// The engine without its thread: jobs, scheduler and world, moved by one call at a time with the time handed in.
// engine.cc runs it; its methods are the life of a job on the coordinator (docs: architecture.md section 5, steps 3 to
// 6).
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "coordinator/engine.h"
#include "coordinator/engine_board.h"
#include "coordinator/jobs/choice.h"
#include "coordinator/schedule/scheduler.h"
#include "coordinator/step_clock.h"

namespace chorale::coordinator {

/// What the engine's options and the world's plan allow.
SchedulerLimits scheduler_limits(const EngineOptions& options, const parallel::ClusterPlan& plan);

/// Thread: engine only; `board` is shared.
class EngineCore {
 public:
  using Time = std::chrono::steady_clock::time_point;

  EngineCore(const EngineOptions& options, std::shared_ptr<const Tokenizer> tokenizer, World& world,
             EngineBoard& board);

  /// Whatever goes wrong in it ends this job only, with an error.
  void submit(JobId id, JobRequest request, std::shared_ptr<JobSink> sink, Time arrival);
  void cancel(JobId id);
  void fail_all(const Failure& failure);
  /// Every job ends with `reason`, now and later.
  void lose_world(const std::string& reason);
  bool is_lost() const { return is_lost_; }

  /// Throws Error{kCorrupt} for an answer that fits no plan: the world is to be given up then.
  void handle(const WorldEvent& event, Time now);
  /// Looks at deadlines and slow readers, sends what can be planned, asks an idle world whether it lives.
  void turn(Time now);
  /// When `turn` should be called though nothing came.
  Time next_look() const { return next_look_; }

 private:
  struct ActiveChoice {
    ActiveChoice(uint64_t id, Choice c) : sequence_id(id), choice(std::move(c)) {}
    uint64_t sequence_id;
    Choice choice;
    Time admitted{};
    Time first_token{};
    Time last_token{};
  };
  struct Job {
    JobId id = 0;
    JobRequest request;
    std::shared_ptr<JobSink> sink;
    Time arrival;
    std::vector<ActiveChoice> choices;
    int num_open_choices = 0;
    std::vector<parallel::SampledToken> prompt_logprobs;  // [prompt_len - 1], until delivered
    bool has_prompt_logprobs = false;                     // delivered
    bool was_admitted = false;
    int64_t num_cached_tokens = 0;
    std::optional<Time> congested_since;
  };
  struct ChoiceRef {
    Job* job = nullptr;
    int choice = 0;
  };
  struct SentStep {
    Time sent;
    int num_tokens = 0;
    std::chrono::milliseconds allowed;
  };

  // engine_results.cc
  void take_report(const parallel::StageReport& report);
  void take_result(const parallel::StepResult& result, Time now);
  void time_step(int num_surplus, Time now);
  void take_prompt_logprobs(const parallel::StepResult& result);
  void deliver_prompt_logprobs(const ChoiceRef& ref);
  void deliver_token(const parallel::SampledToken& token, Time now);
  void end_choice(const ChoiceRef& ref, FinishReason reason, Time now);

  // engine_core.cc
  void start(JobId id, JobRequest request, const std::shared_ptr<JobSink>& sink, Time arrival);
  void refuse(JobSink& sink, const Failure& failure);
  void end_overdue_jobs(Time now);
  void look_at_readers(Time now);
  void forget(Job& job);
  void set_paused(Job& job, Pause pause);
  void send_plans(Time now);
  void send(parallel::StepPlan plan, Time now);
  void note_admissions(std::span<const Admission> admissions, Time now);
  void probe_if_idle(Time now);
  void show_gauges();
  enum class Ending : uint8_t { kCancelled, kFailed };
  void end_job(Job& job, Ending ending);
  void fail_job(Job& job, const Failure& failure);
  void look_again_at(Time when) { next_look_ = std::min(next_look_, when); }

  const EngineOptions options_;
  const std::shared_ptr<const Tokenizer> tokenizer_;
  World& world_;
  EngineBoard& board_;
  Scheduler scheduler_;
  StepClock step_clock_;
  std::unordered_map<JobId, std::unique_ptr<Job>> jobs_;
  std::unordered_map<uint64_t, ChoiceRef> choices_;  // by sequence id
  std::unordered_set<Job*> admitted_;                // whose readers are looked at
  std::set<std::pair<Time, JobId>> deadlines_;
  uint64_t next_sequence_id_ = 1;
  std::deque<SentStep> sent_;  // oldest first
  Time last_answer_{};
  std::optional<Time> starved_since_;  // runnable sequences, nothing in flight
  bool has_answered_ = false;
  bool is_lost_ = false;
  std::string lost_reason_;
  Time next_look_{};
};

}  // namespace chorale::coordinator
