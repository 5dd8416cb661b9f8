#include "worker/sequence_table.h"

#include <algorithm>

#include "comm/base/error.h"
#include "worker/kv/kv_cache.h"

namespace chorale::worker {

void SequenceTable::begin_step(const parallel::StepPlan& plan) {
  for (uint64_t id : plan.ends) {
    const auto found = sequences_.find(id);
    if (found == sequences_.end())
      fail(ErrorCode::kInvalidArgument, "step {}: sequence {} ends but never started", plan.step, id);
    free_slots_.push_back(found->second.slot);
    sequences_.erase(found);
  }
  for (const parallel::SequenceStart& start : plan.starts) {
    const auto [added, is_new] = sequences_.try_emplace(start.sequence_id);
    if (!is_new)
      fail(ErrorCode::kInvalidArgument, "step {}: sequence {} starts a second time", plan.step, start.sequence_id);
    if (free_slots_.empty()) free_slots_.push_back(num_slots_++);
    added->second.slot = free_slots_.back();
    free_slots_.pop_back();
  }
}

Batch SequenceTable::make_batch(const parallel::StepPlan& plan) {
  Batch batch;
  batch.query_start.push_back(0);
  for (const parallel::SequenceChunk& chunk : plan.chunks) {
    add_chunk(chunk, batch);
    const int64_t num_blocks = (batch.context_len.back() + kBlockTokens - 1) / kBlockTokens;
    batch.block_table_stride = std::max(batch.block_table_stride, num_blocks);
  }
  batch.block_table.resize(plan.chunks.size() * static_cast<size_t>(batch.block_table_stride));
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const std::vector<int32_t>& blocks = sequences_.at(plan.chunks[i].sequence_id).blocks;
    const auto used = std::min<size_t>(blocks.size(), static_cast<size_t>(batch.block_table_stride));
    std::copy_n(blocks.begin(), used,
                batch.block_table.begin() + static_cast<std::ptrdiff_t>(i) * batch.block_table_stride);
  }
  return batch;
}

void SequenceTable::add_chunk(const parallel::SequenceChunk& chunk, Batch& batch) {
  const auto found = sequences_.find(chunk.sequence_id);
  if (found == sequences_.end())
    fail(ErrorCode::kInvalidArgument, "a chunk names sequence {}, which has not started", chunk.sequence_id);
  Sequence& sequence = found->second;
  sequence.blocks.insert(sequence.blocks.end(), chunk.new_blocks.begin(), chunk.new_blocks.end());
  if (!sequence.has_run) sequence.context_len = chunk.first_position;  // what is before came from the prefix cache
  sequence.has_run = true;
  if (chunk.first_position != sequence.context_len)
    fail(ErrorCode::kInvalidArgument, "sequence {} goes on at position {}, its cache ends at {}", chunk.sequence_id,
         chunk.first_position, sequence.context_len);
  sequence.context_len += chunk.num_tokens;
  if (static_cast<int64_t>(sequence.blocks.size()) * kBlockTokens < sequence.context_len)
    fail(ErrorCode::kInvalidArgument, "sequence {} needs {} positions, its {} blocks hold {}", chunk.sequence_id,
         sequence.context_len, sequence.blocks.size(), sequence.blocks.size() * kBlockTokens);
  for (int32_t position = chunk.first_position; position < sequence.context_len; ++position) {
    batch.positions.push_back(position);
    batch.slots.push_back(sequence.blocks[position / kBlockTokens] * kBlockTokens + position % kBlockTokens);
  }
  batch.query_start.push_back(static_cast<int32_t>(batch.positions.size()));
  batch.context_len.push_back(sequence.context_len);
}

std::vector<int32_t> SequenceTable::input_ids(const parallel::StepPlan& plan, int64_t vocab_size) const {
  std::vector<int32_t> ids;
  for (const parallel::SequenceChunk& chunk : plan.chunks) {
    for (int32_t id : chunk.tokens)
      if (id < 0 || id >= vocab_size)
        fail(ErrorCode::kInvalidArgument, "step {}: token {} is outside the vocabulary of {}", plan.step, id,
             vocab_size);
    ids.insert(ids.end(), chunk.tokens.begin(), chunk.tokens.end());
    if (!chunk.tokens.empty()) continue;
    const Sequence& sequence = sequences_.at(chunk.sequence_id);
    if (sequence.sampled_by != chunk.from_step)
      fail(ErrorCode::kInvalidArgument, "sequence {} takes its token from step {}, but step {} sampled last",
           chunk.sequence_id, chunk.from_step, sequence.sampled_by);
    ids.push_back(sequence.sampled);
  }
  return ids;
}

void SequenceTable::set_sampled(uint64_t sequence_id, uint64_t step, int32_t token) {
  const auto found = sequences_.find(sequence_id);
  if (found == sequences_.end()) return;
  found->second.sampled_by = step;
  found->second.sampled = token;
}

}  // namespace chorale::worker
