// A world made of arithmetic: it executes step plans as workers would, with a KV cache of hashes, and its next token is
// a hash of all the keys it reads. A plan that names a wrong block, token, position or order gives other tokens than
// `oracle_token`, so tests of the scheduler and the engine compare answers with ==. No threads.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "parallel/step_plan.h"

namespace chorale::test {

constexpr int32_t kOracleVocab = 1000;

/// The token that follows `history`, for one (seed, choice).
int32_t oracle_token(std::span<const int32_t> history, uint64_t seed, uint32_t choice);

class OracleWorld {
 public:
  explicit OracleWorld(int64_t num_kv_blocks) : slots_(static_cast<size_t>(num_kv_blocks) * 16) {}
  /// Executes the plan; throws Error{kInvalidArgument} where a worker could not.
  parallel::StepResult run(const parallel::StepPlan& plan);
  size_t num_sequences() const { return sequences_.size(); }

 private:
  struct Sequence {
    parallel::SamplingParams sampling;
    std::vector<int32_t> history;
    std::vector<int32_t> blocks;
    int32_t context_len = 0;
    uint64_t sampled_by = 0;  // step of the last sample
    int32_t sampled = 0;
  };
  void run_chunk(uint64_t step, const parallel::SequenceChunk& chunk, parallel::StepResult& result);

  std::vector<uint64_t> slots_;  // per block and offset: hash of the tokens up to there
  std::unordered_map<uint64_t, Sequence> sequences_;
  uint64_t last_step_ = 0;
};

}  // namespace chorale::test
