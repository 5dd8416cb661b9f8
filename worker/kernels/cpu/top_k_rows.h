// The selection that all top_k kernels share; they differ in how fast they find the next candidate of a row.
#pragma once

#include <cstdint>

#include "worker/ops/logits.h"

namespace chorale::worker {

/// First i in [begin, n) with x[i] > threshold, or n. NaN is not greater than anything.
using FindGreater = int64_t (*)(const float* x, int64_t begin, int64_t n, float threshold);

void top_k_rows(OpContext& ctx, const TopKArgs& args, FindGreater find_greater);

}  // namespace chorale::worker
