// The 16 virtual lanes of row reductions (N4) on a warp: lanes 0..15 hold one each, the upper half holds nothing.
#pragma once

#include "worker/kernels/cuda/simt.cuh"

namespace chorale::worker::inline SIMT {

constexpr unsigned kRowLanes = 16;

/// Lane i meets lane i + 8, then i + 4, i + 2, i + 1; every lane of the warp gets the sum. The whole warp calls.
__device__ __forceinline__ float fold_sum(float value) {
#pragma unroll
  for (unsigned width = kRowLanes / 2; width > 0; width /= 2) value = value + shuffle_down(value, width);
  return shuffle(value, 0);
}
__device__ __forceinline__ float fold_max(float value) {
#pragma unroll
  for (unsigned width = kRowLanes / 2; width > 0; width /= 2) {
    const float other = shuffle_down(value, width);
    value = value > other ? value : other;
  }
  return shuffle(value, 0);
}

}  // namespace chorale::worker::inline SIMT
