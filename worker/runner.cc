#include "worker/runner.h"

#include <algorithm>

#include "comm/base/error.h"
#include "worker/device_communicator.h"
#include "worker/layers/linear.h"
#include "worker/ops/embedding.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {
using parallel::Sample;
using parallel::SequenceChunk;
using parallel::StepPlan;
using parallel::StepResult;

parallel::Range query_heads(const parallel::ClusterPlan& plan, int rank) {
  return parallel::heads_of(plan.config, plan.layout.attention_leaves[plan.layout.tp_index_of(rank)]);
}

constexpr size_t kFirstScratchBytes = size_t{1} << 20;

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

comm::ByteSpan bytes_of(MatrixView matrix) {
  CHECK_EQ(matrix.row_stride, matrix.cols);
  return {static_cast<std::byte*>(matrix.data), static_cast<size_t>(matrix.rows * matrix.cols) * size_of(matrix.dtype)};
}

}  // namespace

std::vector<int> group_members(const parallel::Layout& layout, int rank) {
  std::vector<int> members;
  for (int tp = 0; tp < layout.tp; ++tp) members.push_back(layout.rank_of(layout.stage_of(rank), tp));
  return members;
}

StageRunner::DeviceGroups::DeviceGroups(comm::Communicator& host_world, comm::Communicator& host_group,
                                        const DeviceStream& where, OpContext& op)
    : staged_world(where ? make_device_communicator(host_world, *where.device, op) : nullptr),
      staged_group(where ? make_device_communicator(host_group, *where.device, op) : nullptr),
      world(where ? *staged_world : host_world),
      group(where ? *staged_group : host_group) {}

StageRunner::StageRunner(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world,
                         comm::Communicator& group, StageWeights weights, ThreadPool& pool, DeviceStream where)
    : plan_(plan),
      rank_(rank),
      world_(world),
      where_(where),
      weights_(std::move(weights)),
      scratch_(where.device, kFirstScratchBytes),
      staging_(where ? std::optional<HostStaging>(std::in_place, where) : std::nullopt),
      op_{.device = where.kind(),
          .isa = plan.numerics.isa,
          .pool = pool,
          .scratch = scratch_,
          .stream = where.stream,
          .staging = staging_ ? &*staging_ : nullptr},
      groups_(world, group, where, op_),
      kv_(where.device, kv_spec(plan, rank), plan.num_kv_blocks),
      model_(make_model({.config = plan_.config,
                         .layout = plan_.layout,
                         .rank = rank,
                         .compute = plan_.numerics.compute,
                         .max_model_len = plan_.max_model_len,
                         .weights = weights_,
                         .kv = kv_,
                         .group = groups_.group,
                         .where = where})),
      sampled_(plan_.layout, rank, world),
      sampler_scratch_(static_cast<size_t>(pool.num_threads())) {
  CHECK_EQ(world.size(), plan.layout.num_ranks());
  CHECK_EQ(group.size(), plan.layout.tp);
  if (where_ && is_sampler()) device_sampler_.emplace(op_, where_, plan_.config.vocab_size);
}

uint64_t StageRunner::kv_bytes() const {
  return static_cast<uint64_t>(kv_bytes_per_block(kv_.spec()) * kv_.num_blocks());
}

StepOutcome StageRunner::run(const StepPlan& plan) {
  const auto start = Deadline::Clock::now();
  parallel::validate(plan, plan_.num_kv_blocks, plan_.max_model_len, plan_.max_num_batched_tokens);
  sequences_.begin_step(plan);
  if (is_sampler()) start_samplers(plan);
  const Batch batch = sequences_.make_batch(plan);
  const Workspace::Scope scope(scratch_);
  const Deadline deadline = Deadline::after(std::chrono::milliseconds(plan.deadline_ms));
  Step step{op_, batch, place_batch(op_, batch), deadline, {}};
  StepResult result{.epoch = plan.epoch, .step = plan.step, .sampled = {}, .prompt_logprobs = {}};

  if (batch.num_tokens() > 0) {
    const MatrixView hidden = take_matrix(op_, DType::kF32, batch.num_tokens(), plan_.config.hidden_size);
    enter_hidden(plan, step, hidden);
    model_->forward(step, hidden);
    if (plan_.layout.is_last_stage(rank_))
      run_head(plan, step, hidden, result);
    else
      leave_hidden(step, hidden);
  }
  if (plan_.layout.is_first_stage(rank_)) sampled_.expect(plan);

  StepOutcome outcome;
  const auto total = Deadline::Clock::now() - start;
  if (is_leader())
    outcome.report = parallel::StageReport{.epoch = plan.epoch,
                                           .step = plan.step,
                                           .stage = plan_.layout.stage_of(rank_),
                                           .compute_us = microseconds(total - step.times.comm - step.times.wait),
                                           .comm_us = microseconds(step.times.comm),
                                           .wait_us = microseconds(step.times.wait)};
  if (is_sampler()) outcome.result = std::move(result);
  return outcome;
}

void StageRunner::enter_hidden(const StepPlan& plan, Step& step, MatrixView hidden) {
  if (plan_.layout.is_first_stage(rank_)) {
    {
      const Stopwatch watch(step.times.wait);
      sampled_.collect(plan, sequences_, step.deadline);
    }
    const std::vector<int32_t> ids = sequences_.input_ids(plan);
    for (int32_t id : ids)
      if (id < 0 || id >= plan_.config.vocab_size)
        fail(ErrorCode::kInvalidArgument, "step {}: token {} is outside the vocabulary of {}", plan.step, id,
             plan_.config.vocab_size);
    model_->embed(step, ids, hidden);
    return;
  }
  const Stopwatch watch(step.times.wait);
  groups_.world.recv(bytes_of(hidden), rank_ - plan_.layout.tp, kHiddenTag, step.deadline);
}

void StageRunner::leave_hidden(Step& step, MatrixView hidden) {
  const Stopwatch watch(step.times.comm);
  groups_.world.send(bytes_of(hidden), rank_ + plan_.layout.tp, kHiddenTag, step.deadline);
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
