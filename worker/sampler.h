// How one token is chosen from one row of logits (architecture.md N8). The leader of the last stage keeps a
// SequenceSampler for each sequence; its answer depends on the row, the parameters, the sequence's tokens and (seed,
// choice, position), and on nothing else. Log-probabilities are of the raw logits and are not computed here.
//
// Order of operations, as in vLLM's sampler:
//   1. logit_bias is added; ids of banned_until_min are masked while fewer than min_tokens were generated
//   2. repetition penalty over prompt and output: positive logits are divided by it, others multiplied
//   3. frequency penalty x count in the output, then presence penalty where the count is not 0, are subtracted
//   4. temperature below 1e-5 is greedy: the largest logit, the lowest id among equals; otherwise logits are divided by
//   it
//   5. min-p: ids whose probability is below min_p times the largest one are dropped
//   6. top-k: the k best stay, ordered by logit descending, then id ascending
//   7. top-p: softmax over what is left; in the same order, ids stay while the probability before them is below top_p
//   8. one uniform number u (worker/philox.h); the first id, in the same order, whose cumulative probability exceeds u
// NaN counts as -inf. Weights exp(logit - max) are float32; their sums are float64, sequential: in ascending id order
// for the total when there is no top-k, in the order of candidates otherwise. Where everything is masked the lowest id
// is returned.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "parallel/step_plan.h"

namespace chorale::worker {

/// Scratch for one row; one a thread, kept between rows so that nothing is allocated.
struct SamplerScratch {
  std::vector<float> logits;
  std::vector<float> weights;
  std::vector<int32_t> candidates;
};

/// Thread: one at a time; different sequences may sample on different threads.
class SequenceSampler {
 public:
  /// History after preemption includes generated tokens: counts are rebuilt from it.
  explicit SequenceSampler(const parallel::SequenceStart& start);

  const parallel::SamplingParams& params() const { return params_; }
  int32_t prompt_len() const { return static_cast<int32_t>(prompt_.size()); }
  std::span<const int32_t> prompt() const { return prompt_; }

  /// True if the answer at `position` is simply the best raw logit.
  bool is_plain_greedy(int32_t position) const;
  /// The token at absolute `position`. `logits`: the raw row [vocab_size]. Ids outside the vocabulary are ignored.
  int32_t sample(std::span<const float> logits, int32_t position, SamplerScratch& scratch) const;
  /// The sequence goes on with `token`: it counts for penalties.
  void append(int32_t token);

 private:
  bool is_banned_time(int32_t position) const { return position - prompt_len() < params_.min_tokens; }
  void adjust(std::span<float> logits, int32_t position) const;
  int32_t draw(std::span<const float> logits, int32_t position, SamplerScratch& scratch) const;

  parallel::SamplingParams params_;
  std::vector<int32_t> prompt_;
  bool has_penalties_ = false;
  std::unordered_map<int32_t, int32_t> output_counts_;  // of every seen id; 0 where only the prompt has it
};

}  // namespace chorale::worker
