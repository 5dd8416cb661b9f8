// What sampling needs from a row of logits (N8): log-sum-exp in a fixed order, and the best ids. Called by the sampler
// on the last stage's leader; temperature, penalties and random numbers are the sampler's.
#pragma once

#include <span>

#include "parallel/layout.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

constexpr int64_t kVocabChunk =
    parallel::kVocabChunk;  // 1024: ids whose (max, sum) are one term; lm_head splits at multiples of it
/// Rows of logits that stand in memory at once: prompt log-probabilities of a long prompt would need gigabytes
/// otherwise.
constexpr int64_t kSlabRows = 32;

/// sum of exp(logit - max) over a range of ids, in 16 virtual lanes.
struct SoftmaxStats {
  float max;
  float sum;
};

/// Per chunk of 1024 columns; the last may be short. A rank that holds a slice of the vocabulary gets the chunks of its
/// slice.
struct LogitStatsArgs {
  MatrixView logits;              // f32 [rows, n]
  SoftmaxStats* stats = nullptr;  // [rows, ceil(n / 1024)]
};
void logit_stats(OpContext& ctx, const LogitStatsArgs& args);

/// Folds chunks left to right; the result is log(sum(exp(logits))). Log-probability of an id = logit - log_sum_exp.
float fold_log_sum_exp(std::span<const SoftmaxStats> stats);

/// The `k` best of every row: logit descending, then id ascending; NaN counts as -inf. k == 1 is argmax. k <= n.
struct TopKArgs {
  MatrixView logits;  // f32 [rows, n]
  int64_t k = 1;
  int32_t* ids = nullptr;   // [rows, k] columns
  float* values = nullptr;  // [rows, k] or null
};
void top_k(OpContext& ctx, const TopKArgs& args);

}  // namespace chorale::worker
