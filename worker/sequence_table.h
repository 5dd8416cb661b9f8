// The sequences that a rank knows: block tables, how far the cache is filled, and (stage 0) the token that was sampled
// last, or where a device has it. Changed only by step plans; makes the batch that the layers see. It holds no tensor
// and decides nothing.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "parallel/step_plan.h"
#include "worker/layers/step.h"

namespace chorale::worker {

class SequenceTable {
 public:
  /// Ends, then starts, of a plan. Throws Error{kInvalidArgument} for a sequence that is unknown or starts twice.
  void begin_step(const parallel::StepPlan& plan);
  /// Appends the chunks' blocks and lays out their rows. Throws Error{kInvalidArgument} for a position that does not
  /// follow the cache's end, or that has no block.
  Batch make_batch(const parallel::StepPlan& plan);

  /// The ids of `plan`'s rows, or their sources (worker/ops/token_ids.h); REQUIRES make_batch. Throws
  /// Error{kInvalidArgument} for an id outside the vocabulary, and when a token is to come from a step that did not
  /// sample for the sequence last.
  std::vector<int32_t> input_ids(const parallel::StepPlan& plan, int64_t vocab_size) const;
  /// What `step` sampled for a sequence: the id, or its source. Ignored for one that has ended.
  void set_sampled(uint64_t sequence_id, uint64_t step, int32_t token);
  /// A number that no other sequence has at the same time, below the most that were alive at once.
  int32_t slot(uint64_t sequence_id) const { return sequences_.at(sequence_id).slot; }

  int32_t num_slots() const { return num_slots_; }
  size_t size() const { return sequences_.size(); }

 private:
  struct Sequence {
    std::vector<int32_t> blocks;
    int32_t context_len = 0;
    bool has_run = false;
    uint64_t sampled_by = 0;
    int32_t sampled = 0;
    int32_t slot = 0;
  };
  void add_chunk(const parallel::SequenceChunk& chunk, Batch& batch);
  std::unordered_map<uint64_t, Sequence> sequences_;
  std::vector<int32_t> free_slots_;
  int32_t num_slots_ = 0;
};

}  // namespace chorale::worker
