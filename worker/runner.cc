#include "worker/runner.h"

#include <algorithm>

#include "comm/base/error.h"
#include "comm/base/leaving.h"
#include "comm/base/log.h"
#include "comm/base/stuck_device.h"
#include "parallel/device_memory.h"
#include "worker/layers/linear.h"
#include "worker/ops/token_ids.h"
#include "worker/step_sizes.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {
using parallel::SampledToken;
using parallel::StepPlan;
using parallel::StepResult;

parallel::Range query_heads(const parallel::ClusterPlan& plan, int rank) {
  return parallel::heads_of(plan.config, plan.layout.attention_leaves[plan.layout.tp_index_of(rank)]);
}

constexpr size_t kFirstScratchBytes = size_t{1} << 20;
constexpr int kSpareLaps = 2;  // pp + 1 steps are under way, and one more is kept

/// A GPU's scratch is what the coordinator counted for the largest step, taken before anything else can take it. The
/// emulator's and the CPU's grows as the host's memory does.
size_t first_scratch_bytes(const parallel::ClusterPlan& plan, const DeviceStream& where) {
  return where.kind() == DeviceKind::kCuda ? static_cast<size_t>(parallel::device_scratch_bytes(
                                                 plan.config, plan.layout, plan.max_num_batched_tokens))
                                           : kFirstScratchBytes;
}

KvCacheSpec kv_spec(const parallel::ClusterPlan& plan, int rank) {
  return {.dtype = plan.numerics.cache,
          .num_layers = static_cast<int>(plan.layout.stage_layers[plan.layout.stage_of(rank)].size()),
          .num_kv_heads = static_cast<int>(parallel::kv_heads_of(plan.config, query_heads(plan, rank)).size()),
          .head_dim = plan.config.head_dim};
}

uint32_t microseconds(std::chrono::nanoseconds time) {
  return static_cast<uint32_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<std::chrono::microseconds>(time).count()));
}

/// The last step whose tokens `plan` reads; 0: none.
uint64_t newest_source(const StepPlan& plan) {
  uint64_t newest = 0;
  for (const parallel::SequenceChunk& chunk : plan.chunks) newest = std::max(newest, chunk.from_step);
  return newest;
}

/// Throws the error again, with the step that it ended.
[[noreturn]] void fail_step(uint64_t step, const Error& error) {
  if (std::string_view(error.what()).starts_with("step ")) throw Error(error.code(), error.what());
  fail(error.code(), "step {}: {}", step, error.what());
}

}  // namespace

std::vector<int> group_members(const parallel::Layout& layout, int rank) {
  std::vector<int> members;
  for (int tp = 0; tp < layout.tp; ++tp) members.push_back(layout.rank_of(layout.stage_of(rank), tp));
  return members;
}

StageRunner::StageRunner(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world,
                         comm::Communicator& group, StageWeights weights, ThreadPool& pool, DeviceStream where,
                         StageTransports transports)
    : plan_(plan),
      rank_(rank),
      world_(world),
      where_(where),
      weights_(std::move(weights)),
      scratch_(where.device, first_scratch_bytes(plan, where)),
      staging_(where ? std::optional<HostStaging>(std::in_place, where, max_staged_bytes(plan)) : std::nullopt),
      op_{.device = where.kind(),
          .isa = plan.numerics.isa,
          .pool = pool,
          .scratch = scratch_,
          .stream = where.stream,
          .staging = staging_ ? &*staging_ : nullptr},
      groups_(group, std::move(transports), plan.numerics.answer, where, op_),
      link_(make_hidden_link(hidden_ends(plan_, rank), world, groups_.transports, where)),
      kv_(where.device, kv_spec(plan, rank), plan.num_kv_blocks),
      model_(make_model({.config = plan_.config,
                         .layout = plan_.layout,
                         .rank = rank,
                         .compute = plan_.numerics.compute,
                         .max_model_len = plan_.max_model_len,
                         .weights = weights_,
                         .kv = kv_,
                         .group = groups_.group,
                         .where = where,
                         .answer = plan_.numerics.answer})),
      sampled_(plan_.layout, rank, world),
      keeps_ids_(where && (plan.layout.pp == 1 || plan.device_comm == parallel::DeviceComm::kNccl)),
      is_asynchronous_(where && (plan.layout.num_ranks() == 1 || plan.device_comm == parallel::DeviceComm::kNccl)),
      sampler_scratch_(static_cast<size_t>(pool.num_threads())) {
  CHECK_EQ(world.size(), plan.layout.num_ranks());
  CHECK_EQ(group.size(), plan.layout.tp);
  if (where_ && is_sampler()) device_sampler_.emplace(op_, where_, plan_.config.vocab_size);
  // Sequences that end in a plan make room for those that start in it; twice as many are a plan that went wrong.
  if (keeps_ids_ && plan_.layout.is_first_stage(rank))
    last_ids_ = Tensor(*where.device, DType::kI32, {max_sequences()});
  if (groups_.transports.ids)
    ids_link_.emplace(*groups_.transports.ids, op_, where, max_sequences(), plan.layout.pp + kSpareLaps);
  if (plan.cuda_graphs == parallel::CudaGraphs::kOn && can_capture()) capture_graphs();
}

StageRunner::~StageRunner() {
  if (!where_) return;
  try {
    where_.stream->synchronize(Deadline::after(kLastWork));
  } catch (const std::exception& error) {
    note_stuck_device();  // who frees its memory, or ends a communicator, would wait for it again
    log_warn("the device did not end its work: {}", error.what());
  }
}

uint64_t StageRunner::kv_bytes() const {
  return static_cast<uint64_t>(kv_bytes_per_block(kv_.spec()) * kv_.num_blocks());
}

std::unique_ptr<StepInFlight> StageRunner::begin(const StepPlan& plan) {
  if (spare_.empty()) spare_.push_back(std::make_unique<StepInFlight>(where_));
  std::unique_ptr<StepInFlight> step = std::move(spare_.back());
  spare_.pop_back();
  step->begin(plan, in_flight_.empty() ? last_.get() : in_flight_.back().get());
  if (is_sampler())
    step->outcome.result = StepResult{.epoch = plan.epoch, .step = plan.step, .sampled = {}, .prompt_logprobs = {}};
  return step;
}

void StageRunner::enqueue(const StepPlan& plan) {
  CHECK_LT(num_in_flight(), max_in_flight());
  const auto start = Deadline::Clock::now();
  parallel::validate(plan, plan_.num_kv_blocks, plan_.max_model_len, plan_.max_num_batched_tokens);
  std::unique_ptr<StepInFlight> entry = begin(plan);
  sequences_.begin_step(plan);
  if (keeps_ids_ && sequences_.num_slots() > max_sequences())
    fail(ErrorCode::kInvalidArgument, "step {}: {} sequences at once, the cluster plan's max_num_seqs is {}", plan.step,
         sequences_.num_slots(), plan_.max_num_seqs);
  if (is_sampler()) start_samplers(plan);
  const Batch batch = sequences_.make_batch(plan);
  const Workspace::Scope scope(scratch_);
  if (entry->spans) entry->spans->start();
  Step step{op_, batch, {}, entry->deadline, {}, entry->spans ? &*entry->spans : nullptr};
  try {
    if (batch.num_tokens() > 0) compute(plan, step, *entry);
  } catch (const Error& error) {
    fail_step(plan.step, error);
  }
  if (plan_.layout.is_first_stage(rank_)) note_sampled(plan, entry->deadline);

  if (where_) {
    entry->done = &entry->spans->stop();
  } else if (is_leader()) {
    const auto total = Deadline::Clock::now() - start;
    entry->outcome.report = report(plan.step, total - step.times.comm - step.times.wait, step.times);
  }
  in_flight_.push_back(std::move(entry));
}

void StageRunner::compute(const StepPlan& plan, Step& step, StepInFlight& entry) {
  const bool is_first = plan_.layout.is_first_stage(rank_);
  const std::vector<int32_t> sources = is_first ? id_sources(plan, step) : std::vector<int32_t>();
  if (graphs_ && graphs_->takes(step.batch)) {
    const DecodeGraphs::Ready ready = graphs_->load(step.batch, sources);
    if (!is_first) receive_hidden(step, ready.hidden);
    ready.graph.launch(*where_.stream);
    ++num_replayed_;
    return leave(plan, step, ready.hidden, ready.logits, entry);
  }
  step.arrays = place_batch(op_, step.batch);
  const MatrixView hidden = take_matrix(op_, DType::kF32, step.batch.num_tokens(), plan_.config.hidden_size);
  if (is_first)
    embed(step, place(op_, std::span<const int32_t>(sources)), hidden);
  else
    receive_hidden(step, hidden);
  model_->forward(step, hidden);
  leave(plan, step, hidden, {}, entry);
}

// `logits`: of all rows, where a graph has computed them.
void StageRunner::leave(const StepPlan& plan, Step& step, MatrixView hidden, MatrixView logits, StepInFlight& entry) {
  if (plan_.layout.is_last_stage(rank_)) return run_head(plan, step, hidden, logits, entry);
  const Stopwatch watch(step, TimeKind::kComm);
  link_->send(hidden, step.deadline);
}

bool StageRunner::is_done() {
  CHECK(!in_flight_.empty());
  const StepInFlight& step = *in_flight_.front();
  if (step.done == nullptr || step.deadline.expired()) return true;  // finish() tells that it is late
  try {
    return where_.stream->is_done(*step.done);
  } catch (const Error& error) {
    fail_step(step.step, error);
  }
}

StepOutcome StageRunner::finish() {
  CHECK(!in_flight_.empty());
  StepInFlight& step = *in_flight_.front();
  await(step);
  StepOutcome outcome = std::move(step.outcome);
  if (last_) spare_.push_back(std::move(last_));
  last_ = std::move(in_flight_.front());
  in_flight_.pop_front();
  if (!in_flight_.empty()) in_flight_.front()->deadline = Deadline::after(in_flight_.front()->allowed);
  return outcome;
}

void StageRunner::await(StepInFlight& step) {
  if (step.done == nullptr) return;
  try {
    where_.stream->synchronize(*step.done, step.deadline);
  } catch (const Error& error) {
    fail_step(step.step, error);
  }
  complete(step);
  step.done = nullptr;
}

// What the device computed is in the host's memory now.
void StageRunner::complete(StepInFlight& step) {
  if (is_leader()) step.outcome.report = report(step);
  if (!is_sampler()) return;
  std::vector<SampledToken>& sampled = step.outcome.result->sampled;
  for (const DeviceSampler::Sampling& sampling : step.samples)
    std::ranges::move(DeviceSampler::read(sampling), std::back_inserter(sampled));
  if (!keeps_ids_) sampled_.publish(step.step, sampled, sequences_, step.deadline);
}

parallel::StageReport StageRunner::report(uint64_t step, std::chrono::nanoseconds compute, StepTimes others) const {
  return {.epoch = plan_.epoch,
          .step = step,
          .stage = plan_.layout.stage_of(rank_),
          .compute_us = microseconds(compute),
          .comm_us = microseconds(others.comm),
          .wait_us = microseconds(others.wait)};
}

parallel::StageReport StageRunner::report(const StepInFlight& step) const {
  const DeviceSpans::Times times = step.spans->read();
  parallel::StageReport of_device = report(step.step, times.compute, times.others);
  if (step.previous != nullptr) {
    const auto gap = step.spans->gap_after(*step.previous->spans).count();
    of_device.gap_ns = static_cast<uint32_t>(std::clamp<int64_t>(gap, 0, parallel::StageReport::kNoGap - 1));
  }
  return of_device;
}

void StageRunner::receive_hidden(Step& step, MatrixView hidden) {
  const Stopwatch watch(step, TimeKind::kWait);
  link_->receive(hidden, step.deadline);
}

// Stage 0: the ids of the plan's rows, or where the device finds them.
std::vector<int32_t> StageRunner::id_sources(const StepPlan& plan, Step& step) {
  if (!keeps_ids_) {
    const Stopwatch watch(step, TimeKind::kWait);
    await_sources(plan);
    sampled_.collect(plan, sequences_, step.deadline);
  }
  if (ids_link_) ids_link_->keep(newest_source(plan), last_ids_.as<int32_t>());
  return sequences_.input_ids(plan, plan_.config.vocab_size);
}

void StageRunner::embed(Step& step, const int32_t* sources, MatrixView hidden) {
  if (!keeps_ids_) return model_->embed(step, sources, hidden);
  const Workspace::Scope scope(scratch_);
  auto* ids = scratch_.take<int32_t>(hidden.rows);
  resolve_ids(op_, {.sources = sources, .table = last_ids_.as<int32_t>(), .count = hidden.rows, .ids = ids});
  model_->embed(step, ids, hidden);
}

// The steps whose ids `plan` reads went through this rank too. Waiting for them here first, where faults of the group
// are watched for, loses no time: their ids cannot come sooner.
void StageRunner::await_sources(const StepPlan& plan) {
  const uint64_t newest = newest_source(plan);
  for (const auto& earlier : in_flight_)
    if (earlier->step <= newest) await(*earlier);
}

// Stage 0: where the tokens will be found that this step samples.
void StageRunner::note_sampled(const StepPlan& plan, Deadline deadline) {
  if (!keeps_ids_) return sampled_.expect(plan);
  std::vector<int32_t> slots;
  for (uint64_t id : sampled_sequences(plan)) {
    slots.push_back(sequences_.slot(id));
    sequences_.set_sampled(id, plan.step, id_source_of_slot(slots.back()));
  }
  if (ids_link_ && !slots.empty()) ids_link_->expect(plan.step, std::move(slots), last_ids_.as<int32_t>(), deadline);
}

void StageRunner::start_samplers(const StepPlan& plan) {
  for (uint64_t id : plan.ends) {
    samplers_.erase(id);
    if (device_sampler_) device_sampler_->end(id);
  }
  for (const parallel::SequenceStart& start : plan.starts) {
    for (int32_t id : start.history)
      if (id < 0 || id >= plan_.config.vocab_size)
        fail(ErrorCode::kInvalidArgument, "step {}: sequence {} holds token {}, outside the vocabulary of {}",
             plan.step, start.sequence_id, id, plan_.config.vocab_size);
    samplers_.emplace(start.sequence_id, SequenceSampler(start));
    if (device_sampler_) device_sampler_->start(start);
  }
}

}  // namespace chorale::worker
