#include "worker/stage.h"

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "parallel/host_facts.h"
#include "worker/thread_pool.h"
#include "worker/weights/weight_loader.h"

namespace chorale::worker {
namespace {

constexpr std::chrono::minutes kWorldDeadline{2}, kTransportDeadline{5};  // NCCL's first contact may take minutes
constexpr double kMiB = 1024.0 * 1024.0;

void check_can_run(const parallel::ClusterPlan& plan, const Device* device) {
  plan.validate();
  const std::string arithmetic = device == nullptr ? "cpu" : device->arithmetic();
  if (plan.numerics.device != arithmetic)
    fail(ErrorCode::kUnsupported, "this rank computes on {}, the world's numerics class is {}", arithmetic,
         plan.numerics.to_string());
  if (!parallel::supports(plan.numerics.isa))
    fail(ErrorCode::kUnsupported, "this CPU ({}) lacks {}, which the world computes with", parallel::cpu_model_name(),
         to_string(plan.numerics.isa));
  if (plan.config.position == parallel::PositionKind::kLearned && plan.max_model_len > plan.config.max_positions)
    fail(ErrorCode::kInvalidArgument, "--max-model-len {} is more than the model's {} learned positions",
         plan.max_model_len, plan.config.max_positions);
}

parallel::Checkpoint open_planned(const parallel::ClusterPlan& plan) {
  parallel::Checkpoint checkpoint = parallel::Checkpoint::open(plan.model_path);
  if (parallel::load_model_config(checkpoint) != plan.config)
    fail(ErrorCode::kInvalidArgument,
         "the model at {} on this host is not the coordinator's; copy the same files to all hosts", plan.model_path);
  return checkpoint;
}

}  // namespace

Stage::Stage(const parallel::ClusterPlan& plan, int rank, int threads, std::unique_ptr<Device> device,
             const WorldFactory& make_world, const OnFailure& on_failure)
    : device_(std::move(device)), stream_(device_ == nullptr ? nullptr : device_->make_stream()) {
  try {
    load(plan, rank, threads, make_world);
  } catch (const std::exception& error) {
    if (on_failure) on_failure(error);
    throw;
  }
}

void Stage::load(const parallel::ClusterPlan& plan, int rank, int threads, const WorldFactory& make_world) {
  check_can_run(plan, device_.get());
  const DeviceStream where{device_.get(), stream_.get()};
  parallel::Checkpoint checkpoint = open_planned(plan);
  const int num_threads = threads > 0 ? threads : plan.threads;
  const Deadline deadline = Deadline::after(kWorldDeadline);
  world_ = make_world({.threads_per_rank = num_threads, .epoch = plan.epoch, .deadline = deadline});
  if (world_->size() != plan.layout.num_ranks())
    fail(ErrorCode::kInvalidArgument, "the plan needs tp x pp = {} x {} = {} ranks, the world has {}", plan.layout.tp,
         plan.layout.pp, plan.layout.num_ranks(), world_->size());
  group_ = world_->split(group_members(plan.layout, rank), deadline);
  StageTransports transports = make_stage_transports(plan, rank, *world_, where, Deadline::after(kTransportDeadline));
  pool_ = std::make_unique<ThreadPool>(ThreadPoolOptions{.num_threads = num_threads, .spin_us = plan.spin_us});
  StageWeights weights = load_weights(
      std::move(checkpoint),
      {plan.config, plan.layout, rank, plan.numerics.compute, where, plan.numerics.gemm, plan.numerics.answer}, *pool_);
  log_info(
      "loaded {:.0f} MiB of weights (read {:.0f} MiB of the checkpoint) in {:.2f} s; device {}, communicator {}{}, {} "
      "threads",
      static_cast<double>(weights.weight_bytes()) / kMiB, static_cast<double>(weights.copied_bytes()) / kMiB,
      weights.load_seconds(), device_ == nullptr ? "cpu" : device_->name(), world_->backend(),
      plan.device_comm == parallel::DeviceComm::kNccl ? ", NCCL" : "", num_threads);
  runner_ = std::make_unique<StageRunner>(plan, rank, *world_, *group_, std::move(weights), *pool_, where,
                                          std::move(transports));
}

parallel::WorkerReady Stage::ready() const {
  return {.load_seconds = runner_->weights().load_seconds(),
          .copied_bytes = runner_->weights().copied_bytes(),
          .weight_bytes = runner_->weights().weight_bytes(),
          .kv_bytes = runner_->kv_bytes(),
          .resident_bytes = parallel::resident_bytes()};
}

}  // namespace chorale::worker
