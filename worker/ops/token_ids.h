// Token ids that stay on a device: a table has, for each sequence, the id that was sampled for it last, so that the
// next step's input needs no word from the host. The stage runner owns the table; a CPU needs none, these ops have
// kernels for devices only.
#pragma once

#include <cstdint>

#include "worker/ops/context.h"

namespace chorale::worker {

/// How an input names an id: the id itself, or the table's slot that holds it.
constexpr int32_t id_source_of_slot(int32_t slot) { return -1 - slot; }

/// ids[i] = sources[i] >= 0 ? sources[i] : table[-1 - sources[i]]
struct ResolveIdsArgs {
  const int32_t* sources = nullptr;  // [count]
  const int32_t* table = nullptr;    // [num_slots]
  int64_t count = 0;
  int32_t* ids = nullptr;  // [count]
};
void resolve_ids(OpContext& ctx, const ResolveIdsArgs& args);

/// table[slots[i]] = ids[i]; nothing where slots[i] < 0. REQUIRES: no slot stands twice.
struct KeepIdsArgs {
  const int32_t* ids = nullptr;    // [count]
  const int32_t* slots = nullptr;  // [count]
  int64_t count = 0;
  int32_t* table = nullptr;  // [num_slots]
};
void keep_ids(OpContext& ctx, const KeepIdsArgs& args);

}  // namespace chorale::worker
