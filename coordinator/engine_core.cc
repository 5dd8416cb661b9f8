#include "coordinator/engine_core.h"

#include <algorithm>
#include <utility>

#include "comm/base/log.h"

namespace chorale::coordinator {
namespace {

constexpr std::chrono::milliseconds kLookAtReaders{20};  // how often congested readers are asked
constexpr std::chrono::milliseconds kLongestSleep{1000};
constexpr std::chrono::seconds kGrace{15};  // beyond a plan's own deadline: then nobody enforces it

double seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

SchedulerLimits scheduler_limits(const EngineOptions& options, const parallel::ClusterPlan& plan) {
  SchedulerLimits limits;
  limits.epoch = plan.epoch;
  limits.num_kv_blocks = plan.num_kv_blocks;
  limits.max_model_len = plan.max_model_len;
  limits.max_num_seqs = plan.max_num_seqs;
  limits.max_num_batched_tokens = plan.max_num_batched_tokens;
  limits.num_stages = plan.layout.pp;
  limits.max_steps_in_flight = options.max_steps_in_flight > 0 ? options.max_steps_in_flight : plan.layout.pp + 1;
  limits.policy = options.policy;
  limits.prefix_caching = options.prefix_caching;
  return limits;
}

EngineCore::EngineCore(const EngineOptions& options, std::shared_ptr<const Tokenizer> tokenizer, World& world,
                       EngineBoard& board)
    : options_(options),
      tokenizer_(std::move(tokenizer)),
      world_(world),
      board_(board),
      scheduler_(scheduler_limits(options, world.plan())),
      step_clock_(world.plan().config) {
  board_.with([&](EngineFacts& facts) { facts.stats.stages.resize(static_cast<size_t>(world.plan().layout.pp)); });
}

void EngineCore::submit(JobId id, JobRequest request, std::shared_ptr<JobSink> sink, Time arrival) {
  if (is_lost_) return refuse(*sink, {ErrorCode::kPeerLost, lost_reason_, ""});
  try {
    start(id, std::move(request), sink, arrival);
  } catch (const std::exception& error) {  // out of memory, say: this job's end, not the world's
    const Failure failure{ErrorCode::kSystem, fmt::format("the job could not be started: {}", error.what()), ""};
    log_error("job {}: {}", id, failure.message);
    const auto entry = jobs_.find(id);
    if (entry == jobs_.end()) return refuse(*sink, failure);
    fail_job(*entry->second, failure);
  }
}

/// A job that is in no list yet.
void EngineCore::refuse(JobSink& sink, const Failure& failure) {
  sink.on_error(failure);
  board_.with([](EngineFacts& facts) { --facts.num_waiting_jobs; });
  board_.job_ended();
}

/// The job is listed before its choices are made, so that end_job can take back what an exception left behind.
void EngineCore::start(JobId id, JobRequest request, const std::shared_ptr<JobSink>& sink, Time arrival) {
  auto made = std::make_unique<Job>();
  made->id = id;
  made->request = std::move(request);
  made->sink = sink;
  made->arrival = arrival;
  Job& job = *jobs_.emplace(id, std::move(made)).first->second;
  const JobRequest& r = job.request;
  if (r.deadline) deadlines_.emplace(*r.deadline, id);
  const std::vector<int32_t>& eos_ids = world_.plan().config.eos_ids;
  if (r.prompt_logprobs == parallel::PromptLogprobs::kYes) job.prompt_logprobs.resize(r.prompt_ids.size() - 1);
  const uint64_t leader = next_sequence_id_;
  for (int i = 0; i < r.num_choices; ++i) {
    const uint64_t sequence_id = next_sequence_id_++;
    auto text = options_.make_text ? options_.make_text(r.prompt_ids) : make_text_stream(tokenizer_, r.prompt_ids);
    job.choices.emplace_back(sequence_id, Choice(r, i, eos_ids, std::move(text)));
    choices_[sequence_id] = {&job, i};
    NewSequence sequence;
    sequence.id = sequence_id;
    sequence.prompt = r.prompt_ids;
    sequence.max_new_tokens = r.max_tokens;
    sequence.sampling = r.sampling;
    sequence.sampling.choice = static_cast<uint32_t>(i);
    sequence.sampling.banned_until_min = banned_until_min_tokens(r, eos_ids);
    sequence.priority = r.priority;
    if (i == 0) sequence.prompt_logprobs = r.prompt_logprobs;
    if (i > 0) sequence.leader = leader;
    scheduler_.add(std::move(sequence));
  }
  job.num_open_choices = r.num_choices;
  board_.with([&](EngineFacts& facts) {
    facts.stats.prompt_tokens += r.prompt_ids.size();
    facts.stats.request_prompt_tokens.observe(static_cast<double>(r.prompt_ids.size()));
    facts.stats.request_params_n.observe(r.num_choices);
    facts.stats.request_params_max_tokens.observe(r.max_tokens);
  });
}

void EngineCore::cancel(JobId id) {
  const auto entry = jobs_.find(id);
  if (entry != jobs_.end()) end_job(*entry->second, Ending::kCancelled);
}

void EngineCore::end_job(Job& job, Ending ending) {
  int num_open = 0;
  for (const ActiveChoice& choice : job.choices) {
    if (choices_.erase(choice.sequence_id) == 0) continue;
    scheduler_.remove(choice.sequence_id);
    ++num_open;
  }
  board_.with([&](EngineFacts& facts) {
    if (!job.was_admitted) --facts.num_waiting_jobs;
    (ending == Ending::kCancelled ? facts.stats.finished_abort : facts.stats.finished_error) +=
        static_cast<uint64_t>(num_open);
  });
  forget(job);
  jobs_.erase(job.id);
  board_.job_ended();
}

void EngineCore::forget(Job& job) {
  admitted_.erase(&job);
  if (job.request.deadline) deadlines_.erase({*job.request.deadline, job.id});
}

void EngineCore::fail_job(Job& job, const Failure& failure) {
  job.sink->on_error(failure);
  end_job(job, Ending::kFailed);
}

void EngineCore::fail_all(const Failure& failure) {
  while (!jobs_.empty()) fail_job(*jobs_.begin()->second, failure);
}

void EngineCore::lose_world(const std::string& reason) {
  if (is_lost_) return;
  is_lost_ = true;
  lost_reason_ = "the world of workers is lost: " + reason;
  log_error("{}; {} jobs end", lost_reason_, jobs_.size());
  board_.with([&](EngineFacts& facts) { facts.lost = lost_reason_; });
  // A world that replaces this one would be handed to scheduler_.requeue_all() here, and the jobs would go on.
  fail_all({ErrorCode::kPeerLost, lost_reason_, ""});
  sent_.clear();
}

void EngineCore::turn(Time now) {
  next_look_ = now + kLongestSleep;
  if (is_lost_) return;
  end_overdue_jobs(now);
  look_at_readers(now);
  send_plans(now);
  probe_if_idle(now);
  if (!sent_.empty()) {
    const SentStep& oldest = sent_.front();
    const Time overdue = std::max(oldest.sent, last_answer_) + oldest.allowed + kGrace;
    if (now >= overdue)
      return lose_world(fmt::format("no answer to a step of {} tokens after {:.0f} s", oldest.num_tokens,
                                    seconds(now - oldest.sent)));
    look_again_at(overdue);
  }
  show_gauges();
}

void EngineCore::end_overdue_jobs(Time now) {
  while (!deadlines_.empty() && now >= deadlines_.begin()->first)
    fail_job(*jobs_.at(deadlines_.begin()->second),
             {ErrorCode::kDeadlineExceeded, "the job did not finish before its deadline", ""});
  if (!deadlines_.empty()) look_again_at(deadlines_.begin()->first);
}

void EngineCore::look_at_readers(Time now) {
  std::vector<Job*> too_slow;
  for (Job* job : admitted_) {
    const bool is_congested = job->sink->is_congested();
    if (is_congested != job->congested_since.has_value()) {
      set_paused(*job, is_congested ? Pause::kYes : Pause::kNo);
      job->congested_since = is_congested ? std::optional(now) : std::nullopt;
    }
    if (!is_congested) continue;
    if (now - *job->congested_since >= options_.slow_reader_timeout) too_slow.push_back(job);
    look_again_at(now + kLookAtReaders);
  }
  for (Job* job : too_slow)
    fail_job(*job, {ErrorCode::kDeadlineExceeded,
                    fmt::format("the reader took nothing for {:.0f} s", seconds(now - *job->congested_since)), ""});
}

void EngineCore::set_paused(Job& job, Pause pause) {
  for (const ActiveChoice& choice : job.choices) scheduler_.set_paused(choice.sequence_id, pause);
}

void EngineCore::send_plans(Time now) {
  while (auto step = scheduler_.schedule()) {
    note_admissions(step->admissions, now);
    send(std::move(step->plan), now);
  }
}

void EngineCore::send(parallel::StepPlan plan, Time now) {
  const int num_tokens = plan.num_tokens();
  plan.deadline_ms = step_clock_.deadline_ms(num_tokens, static_cast<int>(sent_.size()));
  if (sent_.empty() && starved_since_) {
    board_.with([&](EngineFacts& facts) { facts.stats.starved_seconds += seconds(now - *starved_since_); });
    starved_since_.reset();
  }
  sent_.push_back({now, num_tokens, std::chrono::milliseconds(plan.deadline_ms)});
  if (num_tokens > 0)  // a probe is answered at once or not at all
    board_.with([&](EngineFacts& facts) { facts.allowed_until = now + sent_.back().allowed; });
  world_.submit(plan);
}

void EngineCore::note_admissions(std::span<const Admission> admissions, Time now) {
  for (const Admission& admission : admissions) {
    if (admission.kind == Admission::Kind::kResumed) continue;
    const ChoiceRef ref = choices_.at(admission.sequence_id);
    Job& job = *ref.job;
    job.choices[static_cast<size_t>(ref.choice)].admitted = now;
    if (ref.choice == 0) job.num_cached_tokens = admission.num_cached_tokens;
    board_.with([&](EngineFacts& facts) {
      if (!job.was_admitted) --facts.num_waiting_jobs;
      facts.stats.request_queue_time.observe(seconds(now - job.arrival));
    });
    job.was_admitted = true;
    admitted_.insert(&job);
  }
}

void EngineCore::probe_if_idle(Time now) {
  if (!sent_.empty()) return;
  const Time due = last_answer_ + options_.probe_interval;
  if (has_answered_ && now < due) return look_again_at(due);
  scheduler_.check_integrity();
  send(scheduler_.probe(), now);
}

void EngineCore::show_gauges() {
  board_.with([&](EngineFacts& facts) {
    EngineStats& stats = facts.stats;
    stats.num_requests_running = scheduler_.num_running();
    stats.num_requests_waiting = scheduler_.num_waiting();
    stats.num_kv_blocks = scheduler_.num_kv_blocks();
    stats.num_used_kv_blocks = scheduler_.num_used_kv_blocks();
    stats.kv_cache_usage = static_cast<double>(stats.num_used_kv_blocks) / static_cast<double>(stats.num_kv_blocks);
    stats.num_steps_in_flight = scheduler_.num_steps_in_flight();
    stats.prefix_cache_queries = scheduler_.stats().prefix_queries_tokens;
    stats.prefix_cache_hits = scheduler_.stats().prefix_hits_tokens;
    stats.num_preemptions = scheduler_.stats().num_preemptions;
  });
}

}  // namespace chorale::coordinator
