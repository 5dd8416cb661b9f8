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
#include "worker/pinned_arena.h"

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
  /// Tokens that the device chooses.
  struct Sampling {
    struct RowTop : Row {
      int64_t num_top = 0;  // alternatives that the sequence wants
    };
    std::vector<RowTop> rows;
    int64_t num_top = 0;              // the most of any row
    const int32_t* answer = nullptr;  // pinned [2, rows * (1 + num_top)]: ids, then log-probabilities
    int32_t* ids = nullptr;           // on the device [rows]; scratch, valid until the caller's scope ends
  };
  /// Queues the choice for the sampled rows; it counts for their sequences' penalties. The host waits for nothing:
  /// the answer is in `answers` when the device is done.
  Sampling sample(std::span<const Row> rows, MatrixView logits, PinnedArena& answers);
  /// The tokens of the sampled rows, in order. REQUIRES: the device is done.
  static std::vector<parallel::SampledToken> read(const Sampling& sampling);

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
