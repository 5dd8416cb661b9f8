// The last stage's part of StageRunner: logits of the rows that need them, in slabs, collected on the leader, which
// answers.
#include <algorithm>

#include "comm/base/error.h"
#include "worker/layers/linear.h"
#include "worker/ops/cast.h"
#include "worker/ops/embedding.h"
#include "worker/ops/logits.h"
#include "worker/ops/token_ids.h"
#include "worker/runner.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {
using parallel::Sample;
using parallel::SampledToken;
using parallel::SequenceChunk;
using parallel::StepPlan;
using parallel::StepResult;
}  // namespace

struct StageRunner::HeadRow {
  int32_t hidden_row = 0;
  uint64_t sequence_id = 0;
  int32_t position = 0;  // of the token that these logits predict
  Sample sample = Sample::kNo;
  parallel::PromptLogprobs prompt = parallel::PromptLogprobs::kNo;
};

std::vector<StageRunner::HeadRow> StageRunner::head_rows(const StepPlan& plan, const Batch& batch) const {
  std::vector<HeadRow> rows;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    const SequenceChunk& chunk = plan.chunks[i];
    for (int32_t t = 0; t < chunk.num_tokens; ++t) {
      const bool is_sampled = chunk.sample == Sample::kYes && t == chunk.num_tokens - 1;
      if (!is_sampled && chunk.prompt_logprobs == parallel::PromptLogprobs::kNo) continue;
      rows.push_back({.hidden_row = batch.query_start[i] + t,
                      .sequence_id = chunk.sequence_id,
                      .position = chunk.first_position + t + 1,
                      .sample = is_sampled ? Sample::kYes : Sample::kNo,
                      .prompt = chunk.prompt_logprobs});
    }
  }
  return rows;
}

void StageRunner::run_head(const StepPlan& plan, Step& step, MatrixView hidden, MatrixView logits,
                           StepInFlight& entry) {
  const std::vector<HeadRow> rows = head_rows(plan, step.batch);
  const std::span<const HeadRow> all(rows);
  if (logits.rows > 0 && logits.rows == static_cast<int64_t>(rows.size())) {  // of the very rows
    const Workspace::Scope scope(scratch_);
    answer(step, all, logits, entry);
  } else {
    for (size_t begin = 0; begin < rows.size(); begin += kSlabRows) {
      const auto slab = all.subspan(begin, std::min<size_t>(kSlabRows, rows.size() - begin));
      const Workspace::Scope scope(scratch_);
      answer(step, slab, slab_logits(step, hidden, slab), entry);
    }
  }
  if (ids_link_ && entry.num_ids > 0) ids_link_->send(entry.num_ids, step.deadline);
  if (where_ || !is_sampler()) return;  // a device's come to the host later
  const Stopwatch watch(step, TimeKind::kComm);
  sampled_.publish(plan.step, entry.outcome.result->sampled, sequences_, step.deadline);
}

void StageRunner::answer(Step& step, std::span<const HeadRow> rows, MatrixView logits, StepInFlight& entry) {
  int32_t* ids = is_sampler() ? answer_slab(step, rows, logits, entry) : nullptr;
  if (keeps_ids_ && plan_.layout.pp == 1) keep_slab_ids(step, rows, ids);
  if (ids_link_) gather_slab_ids(rows, ids, entry);
}

// [rows, vocab_size] in scratch; only the leader fills it.
MatrixView StageRunner::slab_logits(Step& step, MatrixView hidden, std::span<const HeadRow> rows) {
  const auto num_rows = static_cast<int64_t>(rows.size());
  const MatrixView picked = take_matrix(op_, DType::kF32, num_rows, hidden.cols);
  std::vector<int32_t> row_ids;
  for (const HeadRow& row : rows) row_ids.push_back(row.hidden_row);
  embedding(op_, {.ids = place(op_, std::span<const int32_t>(row_ids)), .table = hidden, .out = picked});
  const MatrixView whole =
      is_leader() ? take_matrix(op_, DType::kF32, num_rows, plan_.config.vocab_size) : MatrixView{};
  collect_logits(step, picked, whole);
  return whole;
}

// `whole` [rows, vocab_size], on the leader; the others send it their slices.
void StageRunner::collect_logits(Step& step, MatrixView picked, MatrixView whole) {
  const Workspace::Scope scope(scratch_);
  const auto& slices = plan_.layout.vocab_rows;
  const parallel::Range own = slices[plan_.layout.tp_index_of(rank_)];
  const int64_t num_rows = picked.rows;
  if (!is_leader()) {
    const MatrixView part = take_matrix(op_, DType::kF32, num_rows, own.size());
    model_->logits(step, picked, part);
    const Stopwatch watch(step, TimeKind::kComm);
    if (own.size() > 0)
      groups_.group.send(
          {static_cast<const std::byte*>(part.data), static_cast<size_t>(num_rows * own.size()) * sizeof(float)}, 0,
          kLogitsTag, step.deadline);
    return;
  }
  model_->logits(step, picked, whole.columns(own.begin, own.end));
  if (plan_.layout.tp == 1) return;
  const Stopwatch watch(step, TimeKind::kComm);
  for (int tp = 1; tp < plan_.layout.tp; ++tp) {
    const parallel::Range slice = slices[tp];
    if (slice.size() == 0) continue;
    const Workspace::Scope part_scope(scratch_);
    const auto part = take_matrix(op_, DType::kF32, num_rows, slice.size());
    groups_.group.recv(
        {static_cast<std::byte*>(part.data), static_cast<size_t>(num_rows * slice.size()) * sizeof(float)}, tp,
        kLogitsTag, step.deadline);
    cast(op_, {.x = part, .out = whole.columns(slice.begin, slice.end)});
  }
}

// Rows of logits, and per row the chunks' softmax terms and the best ids: pointers into scratch of the host.
struct StageRunner::HostLogits {
  MatrixView logits;          // f32 [rows, vocab_size]
  const SoftmaxStats* stats;  // [rows, num_chunks]
  const int32_t* best;        // [rows, num_best]
  int64_t num_chunks, num_best;
};

StageRunner::HostLogits StageRunner::fetch_logits(Step& step, std::span<const HeadRow> rows, MatrixView logits) {
  const int64_t num_chunks = (logits.cols + kVocabChunk - 1) / kVocabChunk;
  auto* stats = scratch_.take<SoftmaxStats>(logits.rows * num_chunks);
  logit_stats(op_, {.logits = logits, .stats = stats});

  int64_t num_best = 1;  // the first is the greedy answer
  for (const HeadRow& row : rows)
    num_best = std::max<int64_t>(num_best, samplers_.at(row.sequence_id).params().num_top_logprobs);
  num_best = std::min(num_best, logits.cols);
  auto* best = scratch_.take<int32_t>(logits.rows * num_best);
  top_k(op_, {.logits = logits, .k = num_best, .ids = best});
  if (!where_) return {logits, stats, best, num_chunks, num_best};
  op_.stream->synchronize(step.deadline);  // copies to memory that is not pinned wait for it without this deadline

  const auto fetch = [&](auto* from, int64_t count) {
    auto* copy = host_scratch_.take<std::remove_pointer_t<decltype(from)>>(count);
    op_.stream->copy(copy, from, static_cast<size_t>(count) * sizeof(*from), CopyKind::kDeviceToHost);
    return copy;
  };
  const HostLogits host{{fetch(static_cast<float*>(logits.data), logits.rows * logits.cols), DType::kF32, logits.rows,
                         logits.cols, logits.cols},
                        fetch(stats, logits.rows * num_chunks),
                        fetch(best, logits.rows * num_best),
                        num_chunks,
                        num_best};
  op_.stream->synchronize(step.deadline);
  return host;
}

// A device chooses by itself; the logits come to the host, which waits for them, only when somebody wants more of them.
// Returns what a device chooses, [rows] in scratch.
int32_t* StageRunner::answer_slab(Step& step, std::span<const HeadRow> rows, MatrixView logits, StepInFlight& entry) {
  const Workspace::Scope scope(host_scratch_);
  int32_t* ids = nullptr;
  if (device_sampler_) {
    std::vector<DeviceSampler::Row> wanted;
    for (const HeadRow& row : rows) wanted.push_back({row.sequence_id, row.position, row.sample});
    entry.samples.push_back(device_sampler_->sample(wanted, logits, *entry.answers));
    ids = entry.samples.back().ids;
    const auto wants_prompt = [](const HeadRow& row) { return row.prompt == parallel::PromptLogprobs::kYes; };
    if (!observe_logits_ && std::ranges::none_of(rows, wants_prompt)) return ids;
  }
  // The host waits now. Stage 0 may have to read the ids of earlier steps before it sends what this one waits for.
  for (const auto& earlier : in_flight_) await(*earlier);
  const HostLogits host = fetch_logits(step, rows, logits);
  describe_prompts(rows, host, *entry.outcome.result);
  if (!device_sampler_) sample_on_host(rows, host, *entry.outcome.result);
  return ids;
}

// The leader's ids, to the table of every rank of a stage that is the first too.
void StageRunner::keep_slab_ids(Step& step, std::span<const HeadRow> rows, int32_t* ids) {
  std::vector<int32_t> slots;
  for (const HeadRow& row : rows) slots.push_back(row.sample == Sample::kYes ? sequences_.slot(row.sequence_id) : -1);
  if (std::ranges::all_of(slots, [](int32_t slot) { return slot < 0; })) return;
  const auto num_rows = static_cast<int64_t>(rows.size());
  if (!is_leader()) ids = scratch_.take<int32_t>(num_rows);
  if (plan_.layout.tp > 1) {
    const Stopwatch watch(step, TimeKind::kComm);
    groups_.group.broadcast(std::as_writable_bytes(std::span(ids, rows.size())), 0, step.deadline);
  }
  keep_ids(op_, {.ids = ids,
                 .slots = place(op_, std::span<const int32_t>(slots)),
                 .count = num_rows,
                 .table = last_ids_.as<int32_t>()});
}

// The leader's ids, one after the other, for stage 0.
void StageRunner::gather_slab_ids(std::span<const HeadRow> rows, const int32_t* ids, StepInFlight& entry) {
  std::vector<int32_t> places;
  for (const HeadRow& row : rows)
    places.push_back(row.sample == Sample::kYes ? static_cast<int32_t>(entry.num_ids++) : -1);
  keep_ids(op_, {.ids = ids,
                 .slots = place(op_, std::span<const int32_t>(places)),
                 .count = static_cast<int64_t>(rows.size()),
                 .table = ids_link_->buffer()});
}

SampledToken StageRunner::describe(const HeadRow& row, const HostLogits& host, int64_t i, int32_t id) const {
  const float* values = host.logits.row<float>(i);
  const int32_t* best = host.best + i * host.num_best;
  const float log_sum_exp = fold_log_sum_exp({host.stats + i * host.num_chunks, static_cast<size_t>(host.num_chunks)});
  SampledToken token{row.sequence_id, row.position, {id, values[id] - log_sum_exp}, {}};
  const int64_t num_top = samplers_.at(row.sequence_id).params().num_top_logprobs;
  for (int64_t j = 0; j < std::min(num_top, host.num_best); ++j)
    token.top.push_back({best[j], values[best[j]] - log_sum_exp});
  return token;
}

void StageRunner::describe_prompts(std::span<const HeadRow> rows, const HostLogits& host, StepResult& result) const {
  for (int64_t i = 0; i < host.logits.rows; ++i) {
    const HeadRow& row = rows[static_cast<size_t>(i)];
    const SequenceSampler& sampler = samplers_.at(row.sequence_id);
    if (observe_logits_)
      observe_logits_(row.sequence_id, row.position,
                      {host.logits.row<float>(i), static_cast<size_t>(host.logits.cols)});
    if (row.prompt == parallel::PromptLogprobs::kYes && row.position < sampler.prompt_len())
      result.prompt_logprobs.push_back(describe(row, host, i, sampler.prompt()[static_cast<size_t>(row.position)]));
  }
}

void StageRunner::sample_on_host(std::span<const HeadRow> rows, const HostLogits& host, StepResult& result) {
  const MatrixView& logits = host.logits;
  std::vector<int32_t> chosen(rows.size(), -1);
  op_.pool.parallel_for(logits.rows, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t i = begin; i < end; ++i) {
      if (rows[i].sample == Sample::kNo) continue;
      const SequenceSampler& sampler = samplers_.at(rows[i].sequence_id);
      const std::span<const float> row(logits.row<float>(i), static_cast<size_t>(logits.cols));
      chosen[i] = sampler.is_plain_greedy(rows[i].position)
                      ? host.best[i * host.num_best]
                      : sampler.sample(row, rows[i].position, sampler_scratch_[static_cast<size_t>(thread)]);
    }
  });

  for (int64_t i = 0; i < logits.rows; ++i) {
    const HeadRow& row = rows[static_cast<size_t>(i)];
    if (row.sample == Sample::kNo) continue;
    result.sampled.push_back(describe(row, host, i, chosen[i]));
    samplers_.at(row.sequence_id).append(chosen[i]);
  }
}

}  // namespace chorale::worker
