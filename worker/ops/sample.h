// Chooses the next token of every row where the logits are, so that no logits leave a device. The rules are those of
// worker/sampler.h step by step (N8); the caller keeps the sequences, draws the random numbers and uploads the rows. A
// rank that computes on its CPU uses worker/sampler.h instead: this op has kernels for devices only.
//
// What differs from worker/sampler.cc is the order in which weights are added, which here can be done in parallel, yet
// depends neither on the other rows nor on how kernels are launched. Weights exp(logit - max) are float32, sums are
// float64. The weight of the candidates up to some place in the row's order (logit descending, then id ascending) is:
//   1. in each chunk of 1024 ids, its candidates up to that place, in order, in segments of 32: a segment left to
//   right,
//      then what the segments before it hold, added left to right, plus that;
//   2. over chunks: chunk c in lane c mod 32, each lane left to right, then lanes fold as a tree (i meets i + 16, ...).
// Every sum of a draw (the total, what top-p keeps, the cumulative weight) is such a prefix, so they agree with each
// other. Both samplers give the same id unless a draw lies within rounding of a boundary.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::parallel {
struct SamplingParams;
}

namespace chorale::worker {

constexpr float kGreedyBelow = 1e-5f;  // temperatures below it, and NaN, mean greedy

/// How often a sequence has an id: 2 x how often it was generated, + 1 if the prompt has it. 0: never seen.
using TokenCount = uint32_t;

/// One row's parameters, in the memory that the kernels read; see parallel::SamplingParams.
struct SampleRow {
  double draw = 0.0;         // uniform_draw(seed, choice, position)
  float temperature = 0.0f;  // 0: greedy
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  int32_t top_k = 0;        // 0: all
  int32_t count_slot = -1;  // which of the counts are the sequence's; -1: it has no penalties
  int32_t first_bias = 0, num_biases = 0;
  int32_t first_banned = 0, num_banned = 0;
};

enum class RowMix {
  kGreedy,
  kAny
};  // kGreedy: no row has a temperature, and the launches that would draw are left out

/// Ids of a row's bias list are different; ids outside the vocabulary are ignored.
struct SampleArgs {
  MatrixView logits;                   // f32 [rows, vocab], raw
  const SampleRow* rows = nullptr;     // [rows]
  const int32_t* bias_ids = nullptr;   // the lists of all rows
  const float* bias_values = nullptr;  //
  const int32_t* banned_ids = nullptr;
  const TokenCount* counts = nullptr;  // [num_slots, vocab]
  RowMix mix = RowMix::kAny;
  int64_t num_top = 0;               // alternatives reported, <= vocab
  int32_t* chosen = nullptr;         // [rows]
  float* chosen_logprobs = nullptr;  // [rows] logit - log_sum_exp, of raw logits
  int32_t* top_ids = nullptr;        // [rows, num_top] of raw logits
  float* top_logprobs = nullptr;     // [rows, num_top]
};
void sample(OpContext& ctx, const SampleArgs& args);

/// Host side of SampleArgs: rows and their lists, to be uploaded.
struct SampleRows {
  std::vector<SampleRow> rows;
  std::vector<int32_t> bias_ids;
  std::vector<float> bias_values;
  std::vector<int32_t> banned_ids;
  RowMix mix = RowMix::kGreedy;

  /// The token at absolute `position` of a sequence. REQUIRES: count_slot >= 0 where has_penalties(params).
  void add(const parallel::SamplingParams& params, int32_t prompt_len, int32_t position, int32_t count_slot);
};
/// True if the sequence needs token counts.
bool has_penalties(const parallel::SamplingParams& params);

enum class TokenOrigin { kPrompt, kOutput };

/// counts[slots[i]][ids[i]] of tokens that a sequence got. Prompt tokens are counted first, into a slot of zeros. Pairs
/// with slot -1 or an id outside the vocabulary are ignored.
struct CountTokensArgs {
  TokenCount* counts = nullptr;    // [num_slots, vocab]
  int64_t vocab = 0;               //
  const int32_t* ids = nullptr;    // [num_tokens]: what sample() chose, or a history
  const int32_t* slots = nullptr;  // [num_tokens]
  int64_t num_tokens = 0;
  TokenOrigin origin = TokenOrigin::kOutput;
};
void count_tokens(OpContext& ctx, const CountTokensArgs& args);

}  // namespace chorale::worker
