// How sampled ids get from the leader of the last stage to the ranks of stage 0 without leaving the world, so that the
// coordinator can plan a step before the one that feeds it is answered. For each step that samples, in step order,
// small messages go to every stage-0 rank.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "comm/base/deadline.h"
#include "comm/communicator.h"
#include "parallel/layout.h"
#include "parallel/step_plan.h"
#include "worker/sequence_table.h"

namespace chorale::worker {

/// Message tags between ranks of the world.
constexpr int kHiddenTag = 1;   // activations, one stage to the next
constexpr int kSampledTag = 2;  // sampled ids, last stage's leader to stage 0
constexpr int kLogitsTag = 3;   // within the last stage's group

/// Ids of one message. The leader must get rid of the ids of pp + 1 steps while stage 0 receives nothing: stage 0 may
/// be idle, and the coordinator sends it nothing more before the leader has answered. Messages of this size do not wait
/// for their receiver; a large step travels in several.
constexpr size_t kIdsPerMessage = comm::kBufferedSendBytes / sizeof(int32_t);

/// Thread: the rank's compute thread.
class SampledTokens {
 public:
  SampledTokens(const parallel::Layout& layout, int rank, comm::Communicator& world)
      : layout_(layout), rank_(rank), world_(world), leader_(layout.rank_of(layout.pp - 1, 0)) {}

  /// The leader: sends the ids that a step sampled (in chunk order) to stage 0, and into its own table when it is
  /// there.
  void publish(uint64_t step, const std::vector<parallel::SampledToken>& sampled, SequenceTable& table,
               Deadline deadline);

  /// Stage-0 ranks: remembers that ids of this step will come.
  void expect(const parallel::StepPlan& plan);
  /// Stage-0 ranks, before the rows of `plan` are embedded: receives what they name. Steps that were surely answered
  /// are received too, so that the ids of no more than pp + 1 steps are under way; neither can block for ever, because
  /// everything those steps need was sent before.
  void collect(const parallel::StepPlan& plan, SequenceTable& table, Deadline deadline);

 private:
  struct Expected {
    uint64_t step = 0;
    std::vector<uint64_t> sequence_ids;  // in chunk order
  };
  void receive_front(SequenceTable& table, Deadline deadline);

  const parallel::Layout& layout_;
  const int rank_;
  comm::Communicator& world_;
  const int leader_;
  std::deque<Expected> expected_;
};

/// The sequences that a plan samples for, in chunk order.
std::vector<uint64_t> sampled_sequences(const parallel::StepPlan& plan);

}  // namespace chorale::worker
