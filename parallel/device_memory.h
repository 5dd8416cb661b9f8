// What a rank needs of a device's memory besides its weights and KV cache. Pure arithmetic, for the budget of a real
// world (coordinator/make_cluster_plan) and for that of one that is only thought of (parallel/recommend).
#pragma once

#include <cstdint>

#include "parallel/layout.h"

namespace chorale::parallel {

/// The scratch of the largest step: hidden rows, q k v, gate and up in float32, the partial sums of all ranks, logits
/// of 32 rows twice, and what attention and sampling take at most. A worker on a GPU takes as much at start, so that no
/// step finds it gone.
uint64_t device_scratch_bytes(const ModelConfig& config, const Layout& layout, int max_num_batched_tokens);

/// The embedding (stage 0; the host's mapping serves a CPU), device_scratch_bytes, and the graphs of decode steps:
/// their inputs, hidden rows and logits.
uint64_t device_extra_bytes(const ModelConfig& config, const Layout& layout, int rank, int max_num_batched_tokens);

/// NCCL's own buffers for a rank's communicators, and those in which hidden rows travel.
uint64_t nccl_bytes(const ModelConfig& config, const Layout& layout, int rank, int max_num_batched_tokens);

/// What the ranks of a device may take together of what is free there: nine tenths; the rest is the runtime's.
constexpr uint64_t usable_device_bytes(uint64_t free_bytes) { return free_bytes / 10 * 9; }

/// On a CPU the KV cache takes one part in so many of the host's free memory.
constexpr uint64_t kHostCacheShare = 4;

}  // namespace chorale::parallel
