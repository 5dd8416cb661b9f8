// Writes the keys and values of new tokens into the paged cache, rounded once to its type (N5). Called by the attention
// layer after rope and before attention, which reads K and V from the cache only.
#pragma once

#include "worker/kv/kv_cache.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// Row i goes to block slots[i] / 16, offset slots[i] % 16. Slots are distinct. On a device a row with slot -1 goes
/// nowhere: the padding of a captured batch.
struct KvWriteArgs {
  MatrixView k;                    // f32 [rows, num_kv_heads * head_dim]
  MatrixView v;                    // f32 [rows, num_kv_heads * head_dim]
  const int32_t* slots = nullptr;  // [rows], each in [0, num_blocks * 16)
  KvLayer cache;
};
void kv_write(OpContext& ctx, const KvWriteArgs& args);

}  // namespace chorale::worker
