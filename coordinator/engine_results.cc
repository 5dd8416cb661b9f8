// What the engine does with the world's answers: tokens to choices, events to sinks, times to statistics.
#include <algorithm>
#include <utility>

#include "coordinator/engine_core.h"

namespace chorale::coordinator {
namespace {

double seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

void EngineCore::handle(const WorldEvent& event, Time now) {
  if (is_lost_) return;
  if (const auto* result = std::get_if<parallel::StepResult>(&event)) return take_result(*result, now);
  if (const auto* report = std::get_if<parallel::StageReport>(&event)) return take_report(*report);
  lose_world(std::get<WorldLost>(event).reason);
}

void EngineCore::take_report(const parallel::StageReport& report) {
  board_.with([&](EngineFacts& facts) {
    if (report.stage < 0 || static_cast<size_t>(report.stage) >= facts.stats.stages.size()) return;
    StageStats& stage = facts.stats.stages[static_cast<size_t>(report.stage)];
    stage.compute_seconds += report.compute_us * 1e-6;
    stage.comm_seconds += report.comm_us * 1e-6;
    stage.wait_seconds += report.wait_us * 1e-6;
    ++stage.num_reports;
  });
  if (options_.on_stage_report) options_.on_stage_report(report);
}

void EngineCore::take_result(const parallel::StepResult& result, Time now) {
  board_.with([&](EngineFacts& facts) { facts.stats.last_step = result.step; });
  const CompletedStep completed = scheduler_.complete(result);
  time_step(completed.num_surplus, now);
  take_prompt_logprobs(result);
  for (uint64_t id : completed.finished_prompts) {
    const ChoiceRef ref = choices_.at(id);
    deliver_prompt_logprobs(ref);
    end_choice(ref, FinishReason::kLength, now);
  }
  for (size_t i : completed.accepted) deliver_token(result.sampled[i], now);
  if (sent_.empty() && scheduler_.num_running() > 0) starved_since_ = now;
}

void EngineCore::time_step(int num_surplus, Time now) {
  const SentStep step = sent_.front();
  sent_.pop_front();
  const double took = seconds(now - std::max(step.sent, last_answer_));
  last_answer_ = now;
  has_answered_ = true;
  if (step.num_tokens > 0) step_clock_.observe(step.num_tokens, took);
  board_.with([&](EngineFacts& facts) {
    facts.answer = now;
    if (step.num_tokens == 0) return;  // a probe
    EngineStats& stats = facts.stats;
    ++stats.num_steps;
    stats.step_seconds += took;
    stats.step_time.observe(took);
    stats.iteration_tokens.observe(step.num_tokens);
    stats.num_surplus_tokens += static_cast<uint64_t>(num_surplus);
  });
}

void EngineCore::take_prompt_logprobs(const parallel::StepResult& result) {
  for (const parallel::SampledToken& entry : result.prompt_logprobs) {
    const auto ref = choices_.find(entry.sequence_id);
    if (ref == choices_.end()) continue;  // ended while the step was in flight
    auto& wanted = ref->second.job->prompt_logprobs;
    if (wanted.empty()) continue;  // delivered
    if (entry.position < 1 || static_cast<size_t>(entry.position) > wanted.size())
      fail(ErrorCode::kCorrupt, "log-probability of prompt position {}, expected was 1 .. {}", entry.position,
           wanted.size());
    wanted[static_cast<size_t>(entry.position) - 1] = entry;
  }
}

void EngineCore::deliver_prompt_logprobs(const ChoiceRef& ref) {
  Job& job = *ref.job;
  if (job.request.prompt_logprobs == parallel::PromptLogprobs::kNo || job.has_prompt_logprobs) return;
  job.has_prompt_logprobs = true;
  job.sink->on_prompt_logprobs(std::exchange(job.prompt_logprobs, {}));
}

void EngineCore::deliver_token(const parallel::SampledToken& token, Time now) {
  const ChoiceRef ref = choices_.at(token.sequence_id);
  ActiveChoice& choice = ref.job->choices[static_cast<size_t>(ref.choice)];
  deliver_prompt_logprobs(ref);
  TokenEvent event = choice.choice.accept(token);
  const std::optional<FinishReason> finish = event.finish;
  ref.job->sink->on_token(std::move(event));
  board_.with([&](EngineFacts& facts) {
    ++facts.stats.generation_tokens;
    if (choice.choice.num_generated() > 1)
      return facts.stats.inter_token_latency.observe(seconds(now - choice.last_token));
    facts.stats.time_to_first_token.observe(seconds(now - ref.job->arrival));
    facts.stats.request_prefill_time.observe(seconds(now - choice.admitted));
    choice.first_token = now;
  });
  choice.last_token = now;
  if (finish) end_choice(ref, *finish, now);
}

void EngineCore::end_choice(const ChoiceRef& ref, FinishReason reason, Time now) {
  Job& job = *ref.job;
  const ActiveChoice& choice = job.choices[static_cast<size_t>(ref.choice)];
  scheduler_.remove(choice.sequence_id);
  choices_.erase(choice.sequence_id);
  board_.with([&](EngineFacts& facts) {
    EngineStats& stats = facts.stats;
    ++(reason == FinishReason::kStop ? stats.finished_stop : stats.finished_length);
    stats.e2e_request_latency.observe(seconds(now - job.arrival));
    stats.request_inference_time.observe(seconds(now - choice.admitted));
    stats.request_generation_tokens.observe(choice.choice.num_generated());
    if (choice.choice.num_generated() > 0) stats.request_decode_time.observe(seconds(now - choice.first_token));
  });
  if (--job.num_open_choices > 0) return;
  forget(job);
  const std::unique_ptr<Job> done = std::move(jobs_.at(job.id));
  jobs_.erase(done->id);
  done->sink->on_done(done->num_cached_tokens);
  board_.job_ended();
}

}  // namespace chorale::coordinator
