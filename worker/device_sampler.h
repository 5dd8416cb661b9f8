// Sampling for a leader of the last stage that computes on a device: keeps the token counts of sequences with penalties
// there, draws the random numbers, and brings back ids and log-probabilities only. The stage runner uses it in place of
// worker/sampler.h; the rules are the same (N8).
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "parallel/step_plan.h"
#include "worker/ops/sample.h"

namespace chorale::worker {

/// Thread: the rank's compute thread.
class DeviceSampler {
 public:
  /// `op` and the device must outlive it.
  DeviceSampler(OpContext& op, const DeviceStream& where, int64_t vocab_size)
      : op_(op), where_(where), vocab_size_(vocab_size) {}

  void start(const parallel::SequenceStart& start);
  void end(uint64_t sequence_id);

  /// A row of logits, and the token that it predicts. Rows that are not sampled are passed over.
  struct Row {
    uint64_t sequence_id = 0;
    int32_t position = 0;
    parallel::Sample sample = parallel::Sample::kNo;
  };
  /// The tokens of the sampled rows, in order; they count for their sequences' penalties. Waits for the device. Throws
  /// Error{kDeadlineExceeded}.
  std::vector<parallel::SampledToken> sample(std::span<const Row> rows, MatrixView logits, Deadline deadline);

 private:
  struct Sequence {
    parallel::SamplingParams params;
    int32_t prompt_len = 0;
    int32_t slot = -1;  // of counts_; -1: it has no penalties
  };
  int32_t take_slot();
  void count(std::span<const int32_t> ids, int32_t slot, TokenOrigin origin);
  TokenCount* counts() const { return static_cast<TokenCount*>(counts_.view().data); }

  OpContext& op_;
  const DeviceStream where_;
  const int64_t vocab_size_;
  std::unordered_map<uint64_t, Sequence> sequences_;
  Tensor counts_;  // i32 [num_slots, vocab_size]; grows when sequences with penalties need more
  std::vector<int32_t> free_slots_;
};

}  // namespace chorale::worker
