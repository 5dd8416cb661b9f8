// How the scheduler forms one step; the policy in words stands in this folder's README.md.
#include <algorithm>
#include <tuple>
#include <utility>

#include "comm/base/error.h"
#include "coordinator/schedule/scheduler.h"

namespace chorale::coordinator {

using parallel::kBlockTokens;
using Place = SequenceState::Place;

namespace {

constexpr int64_t kMinPipelineChunk =
    128;  // tokens; smaller prefill chunks read the weights too often for what they compute

int64_t blocks_for(int64_t num_tokens) { return (num_tokens + kBlockTokens - 1) / kBlockTokens; }

bool is_prefilling(const SequenceState& sequence) { return sequence.num_ready() > 1; }

}  // namespace

struct Scheduler::Draft {
  parallel::StepPlan plan;
  std::vector<Admission> admissions;
  std::vector<ChunkInFlight> chunks;
  int64_t budget = 0;          // tokens left
  int64_t prefill_budget = 0;  // of them for prefill chunks
  uint64_t num_preemptions_before = 0;
};

std::optional<ScheduledStep> Scheduler::schedule() {
  if (num_steps_in_flight() >= limits_.max_steps_in_flight) return std::nullopt;
  Draft draft;
  draft.plan.step = next_step_;
  draft.budget = limits_.max_num_batched_tokens;
  draft.num_preemptions_before = stats_.num_preemptions;

  const int64_t unplanned = unplanned_prefill_tokens();
  int64_t reserve = 0;  // tokens that decode rows leave for prefill, so that a small budget starves nobody
  if (unplanned > 0)
    reserve = draft.budget == 1 ? static_cast<int64_t>(next_step_ % 2) : std::max<int64_t>(1, draft.budget / 8);
  draft.prefill_budget = draft.budget;
  if (limits_.num_stages > 1)
    draft.prefill_budget = std::max(kMinPipelineChunk, (unplanned + limits_.num_stages - 1) / limits_.num_stages);

  const int decode_rows = decode_rows_per_step();
  const int64_t first_rows = std::min<int64_t>(decode_rows, draft.budget - reserve);
  if (is_urgent_waiting()) {
    // Victims are never of this step, so who may preempt comes before the rows are chosen; it leaves their tokens
    // alone.
    const int64_t prefill_budget = std::exchange(draft.prefill_budget, draft.budget - first_rows);
    plan_admissions(draft);
    draft.prefill_budget = prefill_budget;
  }
  plan_decode(draft, static_cast<int>(first_rows), InFlight::kLeaveAlone);
  plan_prefill(draft);
  plan_admissions(draft);
  // Nothing else to do for the pipeline's front: let decode rows follow their predecessors closely rather than idle.
  if (draft.plan.chunks.empty()) plan_decode(draft, decode_rows, InFlight::kChain);
  if (draft.plan.chunks.empty()) return std::nullopt;

  draft.plan.epoch = limits_.epoch;
  draft.plan.ends = std::exchange(ends_, {});
  ++next_step_;
  in_flight_.push_back({draft.plan.step, std::move(draft.chunks)});
  return ScheduledStep{std::move(draft.plan), std::move(draft.admissions)};
}

int Scheduler::decode_rows_per_step() const {
  int num_decoding = 0;
  for (const SequenceState* sequence : running_)
    num_decoding += sequence->num_ready() == 1 && sequence->pause == Pause::kNo ? 1 : 0;
  const int rows = (num_decoding + limits_.num_stages - 1) / limits_.num_stages;
  return std::min(rows, limits_.max_num_batched_tokens);
}

int64_t Scheduler::unplanned_prefill_tokens() const {
  int64_t num_tokens = 0;
  for (const SequenceState* sequence : running_)
    if (is_prefilling(*sequence) && sequence->pause == Pause::kNo) num_tokens += sequence->num_ready();
  // A full pipeline of budgets is as good as more: no need to look at a long queue.
  const int64_t enough = static_cast<int64_t>(limits_.max_num_batched_tokens) * limits_.num_stages;
  int num_slots = limits_.max_num_seqs - num_running();
  for (const auto& [rank, sequence] : waiting_) {
    if (num_tokens >= enough || num_slots <= 0) break;
    if (!may_admit(*sequence)) continue;
    num_tokens += sequence->known_len();
    --num_slots;
  }
  return std::min(num_tokens, enough);
}

void Scheduler::plan_decode(Draft& draft, int max_rows, InFlight in_flight) {
  // Who waited longest goes first: with a budget below the number of sequences, and with micro-batches, this is a
  // rotation.
  std::vector<SequenceState*> ready;
  for (SequenceState* sequence : running_) {
    if (sequence->num_ready() != 1 || sequence->pause == Pause::kYes || sequence->last_step == draft.plan.step)
      continue;
    // A row whose token a step still computes waits at stage 0 for the last stage: worth it only a whole pipeline
    // later.
    const bool must_wait = sequence->num_pending_samples > 0 &&
                           draft.plan.step < sequence->last_step + static_cast<uint64_t>(limits_.num_stages);
    if (must_wait && in_flight == InFlight::kLeaveAlone) continue;
    ready.push_back(sequence);
  }
  std::ranges::sort(ready, [](const SequenceState* a, const SequenceState* b) {
    return std::tie(a->last_step, a->rank) < std::tie(b->last_step, b->rank);
  });
  for (SequenceState* sequence : ready) {
    if (max_rows == 0 || draft.budget == 0) break;
    if (sequence->place != Place::kRunning) continue;  // preempted for one before it
    std::vector<int32_t> new_blocks;
    if (sequence->num_planned == static_cast<int32_t>(sequence->blocks.size()) * kBlockTokens) {
      if (!make_room(draft, *sequence)) continue;
      new_blocks.push_back(pool_.allocate());
    }
    add_chunk(draft, *sequence, 1, std::move(new_blocks));
    --max_rows;
  }
}

void Scheduler::plan_prefill(Draft& draft) {
  std::vector<SequenceState*> ready;
  for (SequenceState* sequence : running_)
    if (is_prefilling(*sequence) && sequence->pause == Pause::kNo && sequence->last_step != draft.plan.step)
      ready.push_back(sequence);
  std::ranges::sort(ready, {}, &SequenceState::rank);
  for (SequenceState* sequence : ready) {
    const int64_t num_tokens = std::min<int64_t>({sequence->num_ready(), draft.budget, draft.prefill_budget});
    if (num_tokens == 0) break;
    draft.prefill_budget -= num_tokens;
    add_chunk(draft, *sequence, static_cast<int32_t>(num_tokens),
              {});  // admission gave it blocks for its whole history
  }
}

bool Scheduler::is_held(const SequenceState& sequence) const {
  const auto leader = sequence.leader ? sequences_.find(*sequence.leader) : sequences_.end();
  if (leader == sequences_.end() || leader->second.prompt_computed) return false;
  // Log-probabilities of the prompt come from the leader, and before any token.
  if (leader->second.prompt_logprobs == parallel::PromptLogprobs::kYes) return true;
  return limits_.prefix_caching == PrefixCaching::kOn && sequence.prompt_len > kBlockTokens;
}

bool Scheduler::may_admit(const SequenceState& sequence) const {
  return sequence.pause == Pause::kNo && sequence.num_chunks_in_flight == 0 && !is_held(sequence);
}

bool Scheduler::is_urgent_waiting() const {
  for (const auto& [rank, waiting] : waiting_) {
    if (!may_admit(*waiting)) continue;
    const int priority = waiting->rank.priority;
    return std::ranges::any_of(running_, [&](const SequenceState* s) { return s->rank.priority > priority; });
  }
  return false;
}

void Scheduler::plan_admissions(Draft& draft) {
  if (stats_.num_preemptions != draft.num_preemptions_before)
    return;  // blocks are short: do not hand them to newcomers
  std::vector<SequenceState*> candidates;
  for (const auto& [rank, sequence] : waiting_) {
    if (static_cast<int>(candidates.size()) == limits_.max_num_seqs) break;
    if (sequence->pause == Pause::kYes || is_held(*sequence)) continue;
    // Its last tokens are still on their way; nobody overtakes it, or it might starve.
    if (sequence->num_chunks_in_flight > 0) break;
    candidates.push_back(sequence);
  }
  for (SequenceState* sequence : candidates)
    if (draft.budget == 0 || draft.prefill_budget == 0 || !admit(draft, *sequence)) break;
}

bool Scheduler::admit(Draft& draft, SequenceState& sequence) {
  while (num_running() >= limits_.max_num_seqs) {
    SequenceState* victim = victim_for_admission(draft, sequence);
    if (victim == nullptr) return false;
    preempt(*victim);
  }
  const std::span<const int32_t> history(sequence.tokens);
  std::vector<CachedBlock> cached;
  const bool reads_cache =
      limits_.prefix_caching == PrefixCaching::kOn && sequence.prompt_logprobs == parallel::PromptLogprobs::kNo;
  // The last token of the history is always computed: its logits are needed.
  if (reads_cache) cached = pool_.find(history, (sequence.known_len() - 1) / kBlockTokens);
  for (const CachedBlock& block : cached) pool_.acquire(block.block);
  // Blocks for the whole history at once, and one more token must fit: then prefill never has to preempt, and admission
  // does not thrash.
  const auto num_cached = static_cast<int64_t>(cached.size());
  const int64_t num_new = blocks_for(sequence.known_len()) - num_cached;
  const int64_t num_needed = blocks_for(std::min(sequence.known_len() + 1, sequence.max_len)) - num_cached;
  while (pool_.num_free() < num_needed) {
    SequenceState* victim = victim_for_admission(draft, sequence);
    if (victim == nullptr) {
      for (auto block = cached.rbegin(); block != cached.rend(); ++block) pool_.release(block->block);
      return false;
    }
    preempt(*victim);
  }
  std::vector<int32_t> table;
  for (const CachedBlock& block : cached) table.push_back(block.block);
  for (int64_t i = 0; i < num_new; ++i) table.push_back(pool_.allocate());

  waiting_.erase(sequence.rank);
  running_.push_back(&sequence);
  sequence.place = Place::kRunning;
  const int64_t num_cached_tokens = num_cached * kBlockTokens;
  sequence.num_planned = sequence.num_computed = static_cast<int32_t>(num_cached_tokens);
  sequence.num_published = num_cached;
  sequence.content = cached.empty() ? kRootContent : cached.back().content;
  draft.plan.starts.push_back({sequence.id, sequence.sampling, sequence.tokens, sequence.prompt_len});
  draft.admissions.push_back(
      {sequence.id, num_cached_tokens, sequence.was_admitted ? Admission::Kind::kResumed : Admission::Kind::kFirst});
  if (!sequence.was_admitted && reads_cache) {
    stats_.prefix_queries_tokens += static_cast<uint64_t>(sequence.known_len());
    stats_.prefix_hits_tokens += static_cast<uint64_t>(num_cached_tokens);
  }
  sequence.was_admitted = true;
  const int64_t num_tokens = std::min<int64_t>({sequence.num_ready(), draft.budget, draft.prefill_budget});
  draft.prefill_budget -= num_tokens;
  add_chunk(draft, sequence, static_cast<int32_t>(num_tokens), std::move(table));
  return true;
}

void Scheduler::add_chunk(Draft& draft, SequenceState& sequence, int32_t num_tokens, std::vector<int32_t> new_blocks) {
  CHECK_GT(num_tokens, 0);
  parallel::SequenceChunk chunk;
  chunk.sequence_id = sequence.id;
  chunk.first_position = sequence.num_planned;
  chunk.num_tokens = num_tokens;
  if (sequence.num_planned < sequence.known_len()) {
    const auto first = sequence.tokens.begin() + sequence.num_planned;
    chunk.tokens.assign(first, first + num_tokens);
  } else {
    CHECK_EQ(num_tokens, 1);
    chunk.from_step = sequence.last_sample_step;
  }
  sequence.blocks.insert(sequence.blocks.end(), new_blocks.begin(), new_blocks.end());
  chunk.new_blocks = std::move(new_blocks);
  const bool is_last_known = sequence.num_planned + num_tokens == sequence.virtual_len();
  if (is_last_known && sequence.virtual_len() < sequence.max_len) chunk.sample = parallel::Sample::kYes;
  if (!sequence.prompt_computed && chunk.first_position + 1 < sequence.prompt_len)
    chunk.prompt_logprobs = sequence.prompt_logprobs;

  sequence.num_planned += num_tokens;
  sequence.last_step = draft.plan.step;
  ++sequence.num_chunks_in_flight;
  if (chunk.sample == parallel::Sample::kYes) {
    ++sequence.num_pending_samples;
    sequence.last_sample_step = draft.plan.step;
  }
  draft.budget -= num_tokens;
  draft.chunks.push_back({sequence.id, sequence.incarnation, sequence.num_planned, chunk.sample});
  draft.plan.chunks.push_back(std::move(chunk));
}

bool Scheduler::make_room(const Draft& draft, SequenceState& sequence) {
  while (pool_.num_free() == 0) {
    // Losers in this order: who needs no further step, who is paused, who came last or matters least. Never one of this
    // step.
    const auto cost = [](const SequenceState* s) {
      return std::tuple(s->is_fully_planned(), s->pause == Pause::kYes, s->rank);
    };
    SequenceState* victim = nullptr;
    bool worse_in_step = false;
    for (SequenceState* candidate : running_) {
      if (candidate->last_step == draft.plan.step) {
        worse_in_step = worse_in_step || candidate->rank > sequence.rank;
      } else if (victim == nullptr || cost(candidate) > cost(victim)) {
        victim = candidate;
      }
    }
    CHECK(victim != nullptr);  // at least `sequence` itself
    if (victim == &sequence) {
      // A worse one got the last block in this step: keep the better one, it goes first in the next.
      if (worse_in_step) return false;
      CHECK_GT(num_running(), 1);  // alone it fits: `refusal` saw to it
      preempt(sequence);
      return false;
    }
    preempt(*victim);
  }
  return true;
}

SequenceState* Scheduler::victim_for_admission(const Draft& draft, const SequenceState& sequence) const {
  SequenceState* victim = nullptr;
  for (SequenceState* candidate : running_) {
    if (candidate->last_step == draft.plan.step) continue;
    const bool is_paused = candidate->pause == Pause::kYes && !candidate->is_fully_planned();
    if (!is_paused && candidate->rank.priority <= sequence.rank.priority) continue;
    if (victim == nullptr || std::tuple(is_paused, candidate->rank) >
                                 std::tuple(victim->pause == Pause::kYes && !victim->is_fully_planned(), victim->rank))
      victim = candidate;
  }
  return victim;
}

}  // namespace chorale::coordinator
