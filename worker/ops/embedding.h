// Gathers rows of a table: token embeddings, learned positions, or the hidden rows that need logits. Called by the
// embedding layer and the runner; it does not scale or normalise.
#pragma once

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

enum class EmbeddingMode { kStore, kAdd };

/// out[i] = table[ids[i]], or out[i] += table[ids[i]].
struct EmbeddingArgs {
  const int32_t* ids = nullptr;  // [rows], each in [0, table.rows)
  MatrixView table;              // f32 | bf16 | f16 [num_ids, dim]
  MatrixView out;                // f32 [rows, dim]
  EmbeddingMode mode = EmbeddingMode::kStore;
};
void embedding(OpContext& ctx, const EmbeddingArgs& args);

}  // namespace chorale::worker
