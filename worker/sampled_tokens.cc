#include "worker/sampled_tokens.h"

#include <algorithm>
#include <span>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {

/// Both ends cut the ids of a step alike.
template <typename Id, typename Visit>
void for_messages(std::span<Id> ids, Visit visit) {
  for (size_t begin = 0; begin < ids.size(); begin += kIdsPerMessage)
    visit(ids.subspan(begin, std::min(kIdsPerMessage, ids.size() - begin)));
}

}  // namespace

std::vector<uint64_t> sampled_sequences(const parallel::StepPlan& plan) {
  std::vector<uint64_t> ids;
  for (const parallel::SequenceChunk& chunk : plan.chunks)
    if (chunk.sample == parallel::Sample::kYes) ids.push_back(chunk.sequence_id);
  return ids;
}

void SampledTokens::publish(uint64_t step, const std::vector<parallel::SampledToken>& sampled, SequenceTable& table,
                            Deadline deadline) {
  if (sampled.empty()) return;
  std::vector<int32_t> ids;
  for (const parallel::SampledToken& token : sampled) ids.push_back(token.token.token_id);
  for (int tp = 0; tp < layout_.tp; ++tp) {
    if (layout_.rank_of(0, tp) != rank_) {
      for_messages(std::span(ids), [&](std::span<const int32_t> piece) {
        world_.send(std::as_bytes(piece), layout_.rank_of(0, tp), kSampledTag, deadline);
      });
      continue;
    }
    for (const parallel::SampledToken& token : sampled)
      table.set_sampled(token.sequence_id, step, token.token.token_id);
  }
}

void SampledTokens::expect(const parallel::StepPlan& plan) {
  if (rank_ == leader_) return;  // it published into its own table
  std::vector<uint64_t> sequences = sampled_sequences(plan);
  if (!sequences.empty()) expected_.push_back({plan.step, std::move(sequences)});
}

void SampledTokens::collect(const parallel::StepPlan& plan, SequenceTable& table, Deadline deadline) {
  const auto in_flight = static_cast<uint64_t>(layout_.pp) + 1;
  uint64_t last = plan.step > in_flight ? plan.step - in_flight : 0;
  for (const parallel::SequenceChunk& chunk : plan.chunks)
    if (chunk.tokens.empty()) last = std::max(last, chunk.from_step);
  while (!expected_.empty() && expected_.front().step <= last) receive_front(table, deadline);
}

void SampledTokens::receive_front(SequenceTable& table, Deadline deadline) {
  const Expected expected = std::move(expected_.front());
  expected_.pop_front();
  std::vector<int32_t> ids(expected.sequence_ids.size());
  for_messages(std::span(ids), [&](std::span<int32_t> piece) {
    world_.recv(std::as_writable_bytes(piece), leader_, kSampledTag, deadline);
  });
  for (size_t i = 0; i < ids.size(); ++i) table.set_sampled(expected.sequence_ids[i], expected.step, ids[i]);
}

}  // namespace chorale::worker
