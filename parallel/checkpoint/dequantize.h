// Turns stored blocks into float32, for every StorageType: the loader's only arithmetic on weights. Each value is the
// formula of ggml's block format with one float32 rounding an operation, so it equals the reference bit for bit. Which
// slice to read is the caller's business (read_f32 in checkpoint.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "parallel/checkpoint/storage_type.h"

namespace chorale::parallel {

/// Writes num_blocks * block_elements(type) floats to `out`. `blocks` needs no alignment.
void dequantize(StorageType type, const std::byte* blocks, int64_t num_blocks, float* out);

}  // namespace chorale::parallel
