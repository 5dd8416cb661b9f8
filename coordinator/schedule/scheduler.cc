#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <utility>

#include "comm/base/error.h"

namespace chorale::coordinator {

using parallel::kBlockTokens;
using Place = SequenceState::Place;

Scheduler::Scheduler(const SchedulerLimits& limits) : limits_(limits), pool_(limits.num_kv_blocks) {
  CHECK_GT(limits.max_model_len, 0);
  CHECK_GT(limits.max_num_seqs, 0);
  CHECK_GT(limits.max_num_batched_tokens, 0);
  CHECK_GT(limits.num_stages, 0);
  CHECK_GT(limits.max_steps_in_flight, 0);
}

std::optional<Failure> refusal(const SchedulerLimits& limits, int64_t prompt_len, int64_t max_new_tokens) {
  const int64_t total = prompt_len + max_new_tokens;
  if (total > limits.max_model_len)
    return Failure{
        ErrorCode::kInvalidArgument,
        fmt::format("the prompt has {} tokens and max_tokens is {}: {} together, but the model's context holds {}; "
                    "shorten the prompt or lower max_tokens",
                    prompt_len, max_new_tokens, total, limits.max_model_len),
        "max_tokens"};
  const int64_t num_blocks = (total + kBlockTokens - 1) / kBlockTokens;
  if (num_blocks > limits.num_kv_blocks)
    return Failure{
        ErrorCode::kInvalidArgument,
        fmt::format("{} tokens (prompt {}, max_tokens {}) need {} KV blocks, but the cluster has {} ({} tokens)", total,
                    prompt_len, max_new_tokens, num_blocks, limits.num_kv_blocks, limits.num_kv_blocks * kBlockTokens),
        "max_tokens"};
  return std::nullopt;
}

void Scheduler::add(NewSequence sequence) {
  CHECK(!sequence.prompt.empty());
  const auto prompt_len = static_cast<int32_t>(sequence.prompt.size());
  CHECK(!refusal(limits_, prompt_len, sequence.max_new_tokens));
  const auto [entry, inserted] = sequences_.try_emplace(sequence.id);
  CHECK(inserted);
  SequenceState& state = entry->second;
  state.id = sequence.id;
  state.rank = {limits_.policy == SchedulingPolicy::kPriority ? sequence.priority : 0, sequence.id};
  state.tokens = std::move(sequence.prompt);
  state.prompt_len = prompt_len;
  state.max_len = prompt_len + sequence.max_new_tokens;
  state.sampling = std::move(sequence.sampling);
  state.prompt_logprobs = sequence.prompt_logprobs;
  state.leader = sequence.leader;
  waiting_.emplace(state.rank, &state);
}

void Scheduler::remove(uint64_t id) {
  const auto entry = sequences_.find(id);
  if (entry == sequences_.end()) return;
  SequenceState& sequence = entry->second;
  if (sequence.place == Place::kRunning) {
    ends_.push_back(id);
    release_blocks(sequence);
    std::erase(running_, &sequence);
  } else {
    waiting_.erase(sequence.rank);
  }
  sequences_.erase(entry);
}

void Scheduler::set_paused(uint64_t id, Pause pause) {
  const auto entry = sequences_.find(id);
  if (entry != sequences_.end()) entry->second.pause = pause;
}

std::span<const int32_t> Scheduler::tokens_of(uint64_t id) const {
  const auto entry = sequences_.find(id);
  CHECK(entry != sequences_.end());
  return entry->second.tokens;
}

CompletedStep Scheduler::complete(const parallel::StepResult& result) {
  if (in_flight_.empty() || result.epoch != limits_.epoch || result.step != in_flight_.front().step)
    fail(ErrorCode::kCorrupt, "the world answered step {} of epoch {}, expected was step {} of epoch {}", result.step,
         result.epoch, in_flight_.empty() ? 0 : in_flight_.front().step, limits_.epoch);
  const StepInFlight step = std::move(in_flight_.front());
  in_flight_.pop_front();
  CompletedStep completed;
  size_t next_sample = 0;
  for (const ChunkInFlight& chunk : step.chunks) {
    const bool has_sample = chunk.sample == parallel::Sample::kYes;
    if (has_sample) {
      if (next_sample >= result.sampled.size() || result.sampled[next_sample].sequence_id != chunk.id ||
          result.sampled[next_sample].position != chunk.end)
        fail(ErrorCode::kCorrupt, "the answer to step {} lacks the token of sequence {} at position {}", step.step,
             chunk.id, chunk.end);
      ++next_sample;
    }
    const auto entry = sequences_.find(chunk.id);
    if (entry == sequences_.end()) {
      completed.num_surplus += has_sample ? 1 : 0;
      continue;
    }
    SequenceState& sequence = entry->second;
    --sequence.num_chunks_in_flight;
    if (chunk.incarnation == sequence.incarnation) {
      sequence.num_computed = chunk.end;
      publish_blocks(sequence);
    }
    if (chunk.end >= sequence.prompt_len) {
      if (!sequence.prompt_computed && !has_sample) completed.finished_prompts.push_back(chunk.id);
      sequence.prompt_computed = true;
    }
    if (has_sample) {
      --sequence.num_pending_samples;
      CHECK_EQ(sequence.known_len(), chunk.end);
      sequence.tokens.push_back(result.sampled[next_sample - 1].token.token_id);
      completed.accepted.push_back(next_sample - 1);
    }
  }
  if (next_sample != result.sampled.size())
    fail(ErrorCode::kCorrupt, "the answer to step {} has {} tokens, expected were {}", step.step, result.sampled.size(),
         next_sample);
  return completed;
}

parallel::StepPlan Scheduler::probe() {
  CHECK(in_flight_.empty());
  parallel::StepPlan plan;
  plan.epoch = limits_.epoch;
  plan.step = next_step_++;
  plan.ends = std::exchange(ends_, {});
  in_flight_.push_back({plan.step, {}});
  return plan;
}

std::vector<uint64_t> Scheduler::requeue_all(const SchedulerLimits& limits) {
  while (!running_.empty()) requeue(*running_.back());
  limits_ = limits;
  pool_ = BlockPool(limits.num_kv_blocks);
  in_flight_.clear();
  ends_.clear();
  next_step_ = 1;
  std::vector<uint64_t> misfits;
  for (auto& [id, sequence] : sequences_) {
    sequence.num_pending_samples = 0;
    sequence.num_chunks_in_flight = 0;
    sequence.last_step = 0;
    sequence.last_sample_step = 0;
    if (refusal(limits_, sequence.prompt_len, sequence.max_len - sequence.prompt_len)) misfits.push_back(id);
  }
  std::ranges::sort(misfits);
  for (uint64_t id : misfits) remove(id);
  return misfits;
}

void Scheduler::preempt(SequenceState& sequence) {
  // A rank runs steps in order, so blocks may be given away in the very step that ends their sequence, whatever is in
  // flight before it.
  ends_.push_back(sequence.id);
  requeue(sequence);
  ++stats_.num_preemptions;
}

void Scheduler::requeue(SequenceState& sequence) {
  CHECK(sequence.place == Place::kRunning);
  release_blocks(sequence);
  ++sequence.incarnation;
  sequence.num_planned = 0;
  sequence.num_computed = 0;
  sequence.place = Place::kWaiting;
  std::erase(running_, &sequence);
  waiting_.emplace(sequence.rank, &sequence);
}

void Scheduler::release_blocks(SequenceState& sequence) {
  for (auto block = sequence.blocks.rbegin(); block != sequence.blocks.rend(); ++block) pool_.release(*block);
  sequence.blocks.clear();
  sequence.num_published = 0;
  sequence.content = kRootContent;
}

void Scheduler::publish_blocks(SequenceState& sequence) {
  if (limits_.prefix_caching == PrefixCaching::kOff) return;
  const std::span<const int32_t> tokens(sequence.tokens);
  for (; (sequence.num_published + 1) * kBlockTokens <= sequence.num_computed; ++sequence.num_published) {
    const auto i = static_cast<size_t>(sequence.num_published);
    sequence.content =
        pool_.publish(sequence.blocks[i], sequence.content, tokens.subspan(i * kBlockTokens, kBlockTokens));
  }
}

void Scheduler::check_integrity() const {
  pool_.check_integrity();
  CHECK_LE(num_running(), limits_.max_num_seqs);
  CHECK_LE(num_steps_in_flight(), limits_.max_steps_in_flight);
  CHECK_EQ(running_.size() + waiting_.size(), sequences_.size());
  std::vector<int> references(static_cast<size_t>(pool_.num_blocks()));
  for (const SequenceState* sequence : running_) {
    CHECK(sequence->place == Place::kRunning);
    for (int32_t block : sequence->blocks) ++references[static_cast<size_t>(block)];
  }
  for (size_t block = 0; block < references.size(); ++block)
    CHECK_EQ(references[block], pool_.references(static_cast<int32_t>(block)));
  for (const auto& [rank, sequence] : waiting_) {
    CHECK(sequence->place == Place::kWaiting);
    CHECK(sequence->blocks.empty());
    CHECK_EQ(sequence->num_planned, 0);
  }
  for (const auto& [id, sequence] : sequences_) check_sequence(sequence);
}

void Scheduler::check_sequence(const SequenceState& sequence) const {
  int32_t num_chunks = 0;
  int32_t num_samples = 0;
  for (const StepInFlight& step : in_flight_) {
    for (const ChunkInFlight& chunk : step.chunks) {
      if (chunk.id != sequence.id) continue;
      ++num_chunks;
      num_samples += chunk.sample == parallel::Sample::kYes ? 1 : 0;
    }
  }
  CHECK_EQ(num_chunks, sequence.num_chunks_in_flight);
  CHECK_EQ(num_samples, sequence.num_pending_samples);
  CHECK_LE(sequence.num_computed, sequence.num_planned);
  CHECK_LE(sequence.num_planned, sequence.virtual_len());
  CHECK_LE(sequence.virtual_len(), sequence.max_len);
  CHECK_LE(sequence.num_planned, static_cast<int32_t>(sequence.blocks.size()) * kBlockTokens);
  CHECK_LE(sequence.num_published, static_cast<int64_t>(sequence.blocks.size()));
}

}  // namespace chorale::coordinator
