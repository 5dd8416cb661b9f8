// Rotary position embedding (RoFormer, arXiv:2104.09864) on q or k, in place, from tables that a model builds once.
// Frequencies and their scaling (linear, llama3, yarn) are the model's business.
#pragma once

#include <span>

#include "comm/base/tensor.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

enum class RopePairing {
  kHalf,        // element i turns with i + rotary_dim / 2 (GPT-NeoX, Hugging Face)
  kInterleaved  // element 2i turns with 2i + 1 (RoFormer)
};

/// cos and sin of position * inv_freq[i], times `attention_factor`; computed in float64, rounded once.
struct RopeTable {
  Tensor cos;  // f32 [max_positions, rotary_dim / 2]
  Tensor sin;  // f32 [max_positions, rotary_dim / 2]
  int64_t rotary_dim() const { return 2 * cos.shape()[1]; }
};
RopeTable make_rope_table(std::span<const double> inv_freq, int64_t max_positions, double attention_factor = 1.0);

/// (a, b) -> (a cos - b sin, b cos + a sin), as fma(a, cos, -(b sin)) and fma(b, cos, a sin). Elements from rotary_dim
/// on stay.
struct RopeArgs {
  MatrixView x;                        // f32 [rows, num_heads * head_dim], in place
  const int32_t* positions = nullptr;  // [rows], below the table's max_positions
  TensorView cos;                      // f32 [max_positions, rotary_dim / 2]
  TensorView sin;                      // f32 [max_positions, rotary_dim / 2]
  int64_t head_dim = 0;                // rotary_dim <= head_dim
  RopePairing pairing = RopePairing::kHalf;
};
void rope(OpContext& ctx, const RopeArgs& args);

}  // namespace chorale::worker
