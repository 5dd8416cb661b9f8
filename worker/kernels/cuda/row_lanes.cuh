// The 16 virtual lanes of row reductions (N4) on a warp: lanes 0..15 hold one each; the upper half holds nothing, or
// the lanes of another reduction.
#pragma once

#include "worker/kernels/cuda/simt.cuh"

namespace chorale::worker::inline SIMT {

constexpr unsigned kRowLanes = 16;

/// Lane i meets lane i + 8, then i + 4, i + 2, i + 1; lanes 0 and 16 get the result of their half of the warp. The
/// whole warp calls.
__device__ __forceinline__ float fold_halves_sum(float value) {
#pragma unroll
  for (unsigned width = kRowLanes / 2; width > 0; width /= 2) value = value + shuffle_down(value, width);
  return value;
}
__device__ __forceinline__ float fold_halves_max(float value) {
#pragma unroll
  for (unsigned width = kRowLanes / 2; width > 0; width /= 2) {
    const float other = shuffle_down(value, width);
    value = value > other ? value : other;
  }
  return value;
}

/// Of the lower half alone; every lane of the warp gets it.
__device__ __forceinline__ float fold_sum(float value) { return shuffle(fold_halves_sum(value), 0); }
__device__ __forceinline__ float fold_max(float value) { return shuffle(fold_halves_max(value), 0); }

}  // namespace chorale::worker::inline SIMT
