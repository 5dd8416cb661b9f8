// StageRunner: executes step plans for one rank. Receives activations (or embeds tokens), runs the stage's layers,
// sends activations on (or computes logits and samples). It decides nothing: every choice is in the plan. On a device a
// step is given to the stream and answered later, so that the next one is prepared meanwhile. The control loop drives
// it; tests drive it directly.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "comm/communicator.h"
#include "parallel/cluster_plan.h"
#include "parallel/step_plan.h"
#include "worker/decode_graphs.h"
#include "worker/device_groups.h"
#include "worker/device_sampler.h"
#include "worker/hidden_link.h"
#include "worker/ids_link.h"
#include "worker/kv/kv_cache.h"
#include "worker/models/model.h"
#include "worker/ops/host_staging.h"
#include "worker/sampled_tokens.h"
#include "worker/sampler.h"
#include "worker/sequence_table.h"
#include "worker/step_in_flight.h"
#include "worker/thread_pool.h"
#include "worker/weights/stage_weights.h"

namespace chorale::worker {

/// The ranks of `rank`'s stage, ascending: the group that a runner needs.
std::vector<int> group_members(const parallel::Layout& layout, int rank);

/// Thread: the rank's compute thread; all ranks of the world run the same plans in the same order.
class StageRunner {
 public:
  /// `world` and `group` (the stage's ranks) and `pool` must outlive it; `weights` are this rank's, in the memory of
  /// `where`, where `transports` (make_stage_transports) move activations. Allocates the KV cache there. Throws
  /// Error{kResourceExhausted}.
  StageRunner(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world, comm::Communicator& group,
              StageWeights weights, ThreadPool& pool, DeviceStream where = {}, StageTransports transports = {});
  ~StageRunner();  // waits for the device, which may still read what goes

  /// Steps that may be enqueued before the oldest is finished. 1 where the host takes part in every step: on a CPU, and
  /// where ranks exchange through the host's memory.
  int max_in_flight() const { return is_asynchronous_ ? 2 : 1; }
  int num_in_flight() const { return static_cast<int>(in_flight_.size()); }

  /// Gives all of a step's work to the device, which the host does not wait for; the CPU does the step. The plan's
  /// deadline counts from here, or from when the step before it is finished. REQUIRES: num_in_flight() <
  /// max_in_flight(). Throws Error{kInvalidArgument} for a plan that breaks the protocol, Error{kPeerLost |
  /// kDeadlineExceeded} from the other ranks; after either the world cannot go on.
  void enqueue(const parallel::StepPlan& plan);
  /// Whether finish() would not wait. Throws as it does. REQUIRES, both: a step in flight.
  bool is_done();
  /// The outcome of the oldest step. Throws Error{kDeadlineExceeded | kSystem} that names it.
  StepOutcome finish();
  /// One step from beginning to end. REQUIRES: none in flight.
  StepOutcome run(const parallel::StepPlan& plan) {
    enqueue(plan);
    return finish();
  }

  uint64_t kv_bytes() const;
  /// Tests: steps that were graphs.
  uint64_t num_replayed() const { return num_replayed_; }
  /// Tests: copies of steps' inputs that had to wait for room.
  uint64_t num_staging_waits() const { return staging_ ? staging_->num_waits() : 0; }
  const StageWeights& weights() const { return weights_; }

  /// Tests: called with every row of logits that the leader of the last stage sees, before sampling.
  using LogitsObserver = std::function<void(uint64_t sequence_id, int32_t position, std::span<const float> logits)>;
  void set_logits_observer(LogitsObserver observer) { observe_logits_ = std::move(observer); }

 private:
  struct HeadRow;  // a hidden row that needs logits, and what for
  bool is_leader() const { return rank_ == plan_.layout.rank_of(plan_.layout.stage_of(rank_), 0); }
  bool is_sampler() const { return is_leader() && plan_.layout.is_last_stage(rank_); }

  std::unique_ptr<StepInFlight> begin(const parallel::StepPlan& plan);
  void compute(const parallel::StepPlan& plan, Step& step, StepInFlight& entry);
  void await(StepInFlight& step);
  void complete(StepInFlight& step);
  parallel::StageReport report(uint64_t step, std::chrono::nanoseconds compute, StepTimes others) const;
  parallel::StageReport report(const StepInFlight& step) const;  // of a device
  std::vector<int32_t> id_sources(const parallel::StepPlan& plan, Step& step);
  void embed(Step& step, const int32_t* sources, MatrixView hidden);
  void receive_hidden(Step& step, MatrixView hidden);
  void leave(const parallel::StepPlan& plan, Step& step, MatrixView hidden, MatrixView logits, StepInFlight& entry);
  bool can_capture() const;
  void capture_graphs();
  bool agree_on_graphs(const std::string& failure, Deadline deadline);
  void start_samplers(const parallel::StepPlan& plan);
  void await_sources(const parallel::StepPlan& plan);
  void note_sampled(const parallel::StepPlan& plan, Deadline deadline);
  int64_t max_sequences() const { return 2 * int64_t{plan_.max_num_seqs}; }
  std::vector<HeadRow> head_rows(const parallel::StepPlan& plan, const Batch& batch) const;
  void run_head(const parallel::StepPlan& plan, Step& step, MatrixView hidden, MatrixView logits, StepInFlight& entry);
  MatrixView slab_logits(Step& step, MatrixView hidden, std::span<const HeadRow> rows);
  void collect_logits(Step& step, MatrixView picked, MatrixView whole);
  void answer(Step& step, std::span<const HeadRow> rows, MatrixView logits, StepInFlight& entry);
  struct HostLogits;  // what answering needs of a slab's logits, in the host's memory
  HostLogits fetch_logits(Step& step, std::span<const HeadRow> rows, MatrixView logits);
  parallel::SampledToken describe(const HeadRow& row, const HostLogits& host, int64_t i, int32_t id) const;
  void describe_prompts(std::span<const HeadRow> rows, const HostLogits& host, parallel::StepResult& result) const;
  void sample_on_host(std::span<const HeadRow> rows, const HostLogits& host, parallel::StepResult& result);
  int32_t* answer_slab(Step& step, std::span<const HeadRow> rows, MatrixView logits, StepInFlight& entry);
  void keep_slab_ids(Step& step, std::span<const HeadRow> rows, int32_t* ids);
  void gather_slab_ids(std::span<const HeadRow> rows, const int32_t* ids, StepInFlight& entry);

  const parallel::ClusterPlan plan_;
  const int rank_;
  comm::Communicator& world_;  // for host memory
  const DeviceStream where_;
  StageWeights weights_;
  Workspace scratch_;
  Workspace host_scratch_;              // the host's copies of a device's answers
  std::optional<HostStaging> staging_;  // where it computes on a device
  OpContext op_;
  DeviceGroups groups_;
  std::unique_ptr<HiddenLink> link_;
  KvCache kv_;
  std::unique_ptr<Model> model_;
  SequenceTable sequences_;
  SampledTokens sampled_;
  const bool keeps_ids_;                                 // sampled ids stay on devices, in stage 0's last_ids_
  std::optional<IdsLink> ids_link_;                      // to there from another stage's leader
  const bool is_asynchronous_;                           // the host takes no part in a step that is enqueued
  Tensor last_ids_;                                      // i32 [slots of sequences_]
  std::deque<std::unique_ptr<StepInFlight>> in_flight_;  // oldest first
  std::unique_ptr<StepInFlight> last_;                   // finished; the next is timed from its end
  std::vector<std::unique_ptr<StepInFlight>> spare_;
  std::unordered_map<uint64_t, SequenceSampler> samplers_;  // last stage's leader only
  std::optional<DeviceSampler> device_sampler_;             // likewise, where it computes on a device
  std::vector<SamplerScratch> sampler_scratch_;             // [num_threads]
  LogitsObserver observe_logits_;
  std::optional<DecodeGraphs> graphs_;
  uint64_t num_replayed_ = 0;
};

}  // namespace chorale::worker
