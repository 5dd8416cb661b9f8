#include "tests/support/oracle_world.h"

#include "comm/base/error.h"

namespace chorale::test {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15ULL + b + 0x632be59bd9b4e019ULL;
  x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9ULL;
  return x ^ (x >> 29);
}

int32_t pick(uint64_t keys, uint64_t seed, uint32_t choice) {
  return static_cast<int32_t>(mix(mix(keys, seed), choice) % kOracleVocab);
}

}  // namespace

int32_t oracle_token(std::span<const int32_t> history, uint64_t seed, uint32_t choice) {
  uint64_t key = 0;
  uint64_t all = 0;
  for (int32_t token : history) {
    key = mix(key, static_cast<uint64_t>(token));
    all = mix(all, key);
  }
  return pick(all, seed, choice);
}

parallel::StepResult OracleWorld::run(const parallel::StepPlan& plan) {
  if (plan.step != last_step_ + 1) fail(ErrorCode::kInvalidArgument, "step {} after {}", plan.step, last_step_);
  last_step_ = plan.step;
  for (uint64_t id : plan.ends)
    if (sequences_.erase(id) == 0) fail(ErrorCode::kInvalidArgument, "unknown sequence {} ends", id);
  for (const parallel::SequenceStart& start : plan.starts) {
    const auto [entry, inserted] = sequences_.try_emplace(start.sequence_id);
    if (!inserted) fail(ErrorCode::kInvalidArgument, "sequence {} starts twice", start.sequence_id);
    entry->second.sampling = start.sampling;
    entry->second.history = start.history;
  }
  parallel::StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  for (const parallel::SequenceChunk& chunk : plan.chunks) run_chunk(plan.step, chunk, result);
  return result;
}

void OracleWorld::run_chunk(uint64_t step, const parallel::SequenceChunk& chunk, parallel::StepResult& result) {
  const auto entry = sequences_.find(chunk.sequence_id);
  if (entry == sequences_.end()) fail(ErrorCode::kInvalidArgument, "unknown sequence {}", chunk.sequence_id);
  Sequence& sequence = entry->second;
  const bool is_first = sequence.blocks.empty();
  sequence.blocks.insert(sequence.blocks.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
  if (is_first) sequence.context_len = chunk.first_position;  // the prefix cache holds what is before
  if (chunk.first_position != sequence.context_len)
    fail(ErrorCode::kInvalidArgument, "sequence {} goes on at {} instead of {}", chunk.sequence_id,
         chunk.first_position, sequence.context_len);
  const auto slot = [&](int32_t position) -> uint64_t& {
    return slots_.at(static_cast<size_t>(sequence.blocks.at(static_cast<size_t>(position / 16))) * 16 +
                     static_cast<size_t>(position % 16));
  };
  for (int32_t i = 0; i < chunk.num_tokens; ++i) {
    const int32_t position = chunk.first_position + i;
    int32_t token = sequence.sampled;
    if (!chunk.tokens.empty()) {
      token = chunk.tokens.at(static_cast<size_t>(i));
    } else if (chunk.from_step != sequence.sampled_by) {
      fail(ErrorCode::kInvalidArgument, "step {} did not sample last for sequence {}", chunk.from_step,
           chunk.sequence_id);
    }
    slot(position) = mix(position == 0 ? 0 : slot(position - 1), static_cast<uint64_t>(token));
  }
  sequence.context_len += chunk.num_tokens;
  if (chunk.prompt_logprobs == parallel::PromptLogprobs::kYes) {
    for (int32_t p = chunk.first_position + 1;
         p <= sequence.context_len && p < static_cast<int32_t>(sequence.history.size()); ++p)
      result.prompt_logprobs.push_back({chunk.sequence_id, p, {sequence.history[static_cast<size_t>(p)], -1.0F}, {}});
  }
  if (chunk.sample == parallel::Sample::kNo) return;
  uint64_t all = 0;
  for (int32_t position = 0; position < sequence.context_len; ++position) all = mix(all, slot(position));
  sequence.sampled = pick(all, sequence.sampling.seed, sequence.sampling.choice);
  sequence.sampled_by = step;
  result.sampled.push_back({chunk.sequence_id, sequence.context_len, {sequence.sampled, -0.5F}, {}});
}

}  // namespace chorale::test
