// StepPlan and StepResult: one step of the world. The coordinator decides everything (which tokens, which KV blocks,
// how to sample); every worker gets every plan and decides nothing. A recorded plan can be replayed.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "comm/base/bytes.h"

namespace chorale::parallel {

/// How the last stage picks tokens of one sequence. Defaults mean "off". Semantics and order: worker/sampler.h.
struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output
  float presence_penalty = 0.0f;    // over output
  float frequency_penalty = 0.0f;   // over output
  uint64_t seed = 0;
  uint32_t choice = 0;           // index among n choices of the job
  int32_t num_top_logprobs = 0;  // alternatives reported per token
  int32_t min_tokens = 0;        // banned_until_min is masked while fewer were generated
  std::vector<int32_t> banned_until_min;
  std::vector<std::pair<int32_t, float>> logit_bias;
  bool operator==(const SamplingParams&) const = default;
};

/// First appearance of a sequence in the world, also after preemption (then `history` holds what it generated so far).
struct SequenceStart {
  uint64_t sequence_id = 0;
  SamplingParams sampling;
  std::vector<int32_t> history;  // prompt, then generated tokens
  int32_t prompt_len = 0;
};

enum class Sample : uint8_t { kNo, kYes };
enum class PromptLogprobs : uint8_t { kNo, kYes };

/// Consecutive tokens of one sequence in this step: a prefill chunk or one decode row.
struct SequenceChunk {
  uint64_t sequence_id = 0;
  int32_t first_position = 0;  // absolute position of the first token = context already in the cache
  int32_t num_tokens = 0;      // query_len
  std::vector<int32_t>
      tokens;  // [num_tokens], or empty: the one token is what step `from_step` samples for this sequence
  uint64_t from_step = 0;
  std::vector<int32_t> new_blocks;  // appended to the sequence's block table by this step (whole table at its start)
  Sample sample = Sample::kNo;      // sample after the last token
  PromptLogprobs prompt_logprobs =
      PromptLogprobs::kNo;  // report log-probabilities of prompt tokens first_position + 1 ..
};

struct StepPlan {
  uint64_t epoch = 0;
  uint64_t step = 0;  // ascending from 1
  uint32_t deadline_ms = 30000;
  std::vector<uint64_t>
      ends;  // sequences that are forgotten before this step; their blocks may be given to others in it
  std::vector<SequenceStart> starts;
  std::vector<SequenceChunk> chunks;

  int num_tokens() const;
  Bytes encode() const;
  /// Throws Error{kCorrupt}.
  static StepPlan decode(std::span<const std::byte> bytes);
  std::string to_string() const;
};

/// Throws Error{kInvalidArgument}: sequences once per step, positions and block ids in range, token
/// counts within limits.
void validate(const StepPlan& plan, int64_t num_kv_blocks, int64_t max_model_len, int max_num_batched_tokens);

struct TokenLogprob {
  int32_t token_id = 0;
  float logprob = 0;
};

struct SampledToken {
  uint64_t sequence_id = 0;
  int32_t position = 0;  // of the sampled token
  TokenLogprob token;
  std::vector<TokenLogprob> top;  // num_top_logprobs best, by (logit descending, id ascending)
};

/// From the leader of the last stage.
struct StepResult {
  uint64_t epoch = 0;
  uint64_t step = 0;
  std::vector<SampledToken> sampled;          // in chunk order
  std::vector<SampledToken> prompt_logprobs;  // position p: log-probability of the prompt's token at p

  Bytes encode() const;
  static StepResult decode(std::span<const std::byte> bytes);
};

/// From the leader of each stage, after each step: for metrics and benches, never for decisions.
struct StageReport {
  uint64_t epoch = 0;
  uint64_t step = 0;
  int32_t stage = 0;
  uint32_t compute_us = 0;  // in kernels
  uint32_t comm_us = 0;     // in collectives of the stage
  uint32_t wait_us = 0;     // for the stage before, or for sampled tokens
  /// For how long the device had nothing of a step to do before this one: from the mark behind the step before to the
  /// mark ahead of this one's first work. kNoGap: not on a device, or no step before.
  uint32_t gap_ns = kNoGap;
  static constexpr uint32_t kNoGap = UINT32_MAX;

  Bytes encode() const;
  static StageReport decode(std::span<const std::byte> bytes);
};

}  // namespace chorale::parallel
