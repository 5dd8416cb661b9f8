#include "worker/device_sampler.h"

#include <algorithm>
#include <bit>

#include "comm/base/error.h"
#include "worker/layers/step.h"

namespace chorale::worker {

void DeviceSampler::start(const parallel::SequenceStart& start) {
  Sequence sequence{.params = start.sampling, .prompt_len = start.prompt_len};
  if (has_penalties(start.sampling)) {
    sequence.slot = take_slot();
    const std::span<const int32_t> history(start.history);
    const auto prompt_len = std::min(history.size(), static_cast<size_t>(std::max(start.prompt_len, 0)));
    count(history.first(prompt_len), sequence.slot, TokenOrigin::kPrompt);
    count(history.subspan(prompt_len), sequence.slot, TokenOrigin::kOutput);
  }
  sequences_.emplace(start.sequence_id, std::move(sequence));
}

void DeviceSampler::end(uint64_t sequence_id) {
  const auto found = sequences_.find(sequence_id);
  if (found == sequences_.end()) return;
  if (found->second.slot >= 0) free_slots_.push_back(found->second.slot);
  sequences_.erase(found);
}

// A slot of zeros.
int32_t DeviceSampler::take_slot() {
  constexpr int64_t kFirstSlots = 8;
  if (free_slots_.empty()) {
    const int64_t num_slots = counts_.view().data == nullptr ? 0 : counts_.shape()[0];
    Tensor larger(*where_.device, DType::kI32, {std::max(kFirstSlots, 2 * num_slots), vocab_size_});
    if (num_slots > 0) {
      op_.stream->copy(larger.view().data, counts_.view().data, counts_.view().size_bytes(), CopyKind::kDeviceToDevice);
      op_.stream->synchronize(Deadline::after(std::chrono::minutes(1)));  // before the smaller one goes
    }
    for (int64_t slot = larger.shape()[0]; slot-- > num_slots;) free_slots_.push_back(static_cast<int32_t>(slot));
    counts_ = std::move(larger);
  }
  const int32_t slot = free_slots_.back();
  free_slots_.pop_back();
  op_.stream->fill_zero(counts() + slot * vocab_size_, static_cast<size_t>(vocab_size_) * sizeof(TokenCount));
  return slot;
}

void DeviceSampler::count(std::span<const int32_t> ids, int32_t slot, TokenOrigin origin) {
  const Workspace::Scope scope(op_.scratch);
  const std::vector<int32_t> slots(ids.size(), slot);
  count_tokens(op_, {.counts = counts(),
                     .vocab = vocab_size_,
                     .ids = place(op_, ids),
                     .slots = place(op_, std::span<const int32_t>(slots)),
                     .num_tokens = static_cast<int64_t>(ids.size()),
                     .origin = origin});
}

DeviceSampler::Sampling DeviceSampler::sample(std::span<const Row> rows, MatrixView logits, PinnedArena& answers) {
  const auto num_rows = static_cast<int64_t>(rows.size());
  parallel::SamplingParams passed_over;
  passed_over.temperature = 0;
  Sampling sampling;
  SampleRows table;
  std::vector<int32_t> slots;
  for (const Row& row : rows) {
    const bool is_sampled = row.sample == parallel::Sample::kYes;
    const Sequence* sequence = is_sampled ? &sequences_.at(row.sequence_id) : nullptr;
    table.add(is_sampled ? sequence->params : passed_over, is_sampled ? sequence->prompt_len : 0, row.position,
              is_sampled ? sequence->slot : -1);
    slots.push_back(is_sampled ? sequence->slot : -1);
    const int64_t num_top = is_sampled ? std::min<int64_t>(sequence->params.num_top_logprobs, logits.cols) : 0;
    sampling.rows.push_back({row, num_top});
    sampling.num_top = std::max(sampling.num_top, num_top);
  }

  // One block of answers, so that one copy brings them: ids and log-probabilities of what was chosen, then of the best.
  const int64_t num_answers = num_rows * (1 + sampling.num_top);
  auto* ids = op_.scratch.take<int32_t>(2 * num_answers);
  auto* logprobs = reinterpret_cast<float*>(ids + num_answers);
  const auto as_span = [](const auto& values) { return std::span(values.data(), values.size()); };
  worker::sample(op_, {.logits = logits,
                       .rows = place(op_, as_span(table.rows)),
                       .bias_ids = place(op_, as_span(table.bias_ids)),
                       .bias_values = place(op_, as_span(table.bias_values)),
                       .banned_ids = place(op_, as_span(table.banned_ids)),
                       .counts = counts(),
                       .mix = table.mix,
                       .num_top = sampling.num_top,
                       .chosen = ids,
                       .chosen_logprobs = logprobs,
                       .top_ids = ids + num_rows,
                       .top_logprobs = logprobs + num_rows});
  if (std::ranges::any_of(slots, [](int32_t slot) { return slot >= 0; }))
    count_tokens(op_, {.counts = counts(),
                       .vocab = vocab_size_,
                       .ids = ids,
                       .slots = place(op_, as_span(slots)),
                       .num_tokens = num_rows});
  const auto num_words = static_cast<size_t>(2 * num_answers);
  auto* answer = answers.take<int32_t>(num_words);
  op_.stream->copy(answer, ids, num_words * sizeof(int32_t), CopyKind::kDeviceToHost);
  sampling.answer = answer;
  sampling.ids = ids;
  return sampling;
}

std::vector<parallel::SampledToken> DeviceSampler::read(const Sampling& sampling) {
  const auto num_rows = static_cast<int64_t>(sampling.rows.size()), num_top = sampling.num_top;
  const int64_t num_answers = num_rows * (1 + num_top);
  const auto entry = [&](int64_t i) {
    return parallel::TokenLogprob{sampling.answer[i], std::bit_cast<float>(sampling.answer[num_answers + i])};
  };
  std::vector<parallel::SampledToken> tokens;
  for (int64_t i = 0; i < num_rows; ++i) {
    const Sampling::RowTop& row = sampling.rows[static_cast<size_t>(i)];
    if (row.sample == parallel::Sample::kNo) continue;
    parallel::SampledToken token{row.sequence_id, row.position, entry(i), {}};
    for (int64_t j = 0; j < row.num_top; ++j) token.top.push_back(entry(num_rows + i * num_top + j));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace chorale::worker
