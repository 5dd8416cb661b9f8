// Rows four elements at a time: what element-wise kernels and norms share. A thread's share is one 16-byte access (8
// for 16-bit types) where every row starts at a multiple of four elements, else four single ones: the same values
// either way.
#pragma once

#include <algorithm>

#include "worker/kernels/cuda/launch_support.cuh"

namespace chorale::worker::inline SIMT {

template <typename T>
struct alignas(4 * sizeof(T)) Quad {
  T at[4];
};

/// v[i] = p[i] for i < count, else 0. `aligned`: p is a multiple of a Quad<T>'s size.
template <typename T>
__device__ __forceinline__ void load_quad(float (&v)[4], const T* p, int64_t count, bool aligned) {
  if (aligned && count >= 4) {
    const Quad<T> quad = *reinterpret_cast<const Quad<T>*>(p);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = to_f32(quad.at[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = i < count ? to_f32(p[i]) : 0.0f;
  }
}

/// p[i] = v[i] rounded, for i < min(count, 4).
template <typename T>
__device__ __forceinline__ void store_quad(T* p, const float (&v)[4], int64_t count, bool aligned) {
  if (aligned && count >= 4) {
    Quad<T> quad;
#pragma unroll
    for (int i = 0; i < 4; ++i) store(quad.at[i], v[i]);
    *reinterpret_cast<Quad<T>*>(p) = quad;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (i < count) store(p[i], v[i]);
  }
}

/// True if a quad of `m` may start at every fourth column of every row.
inline bool starts_quads(const MatrixView& m) {
  return reinterpret_cast<uintptr_t>(m.data) % (4 * size_of(m.dtype)) == 0 && (m.rows <= 1 || m.row_stride % 4 == 0);
}
inline bool starts_quads(const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }  // also for null

constexpr unsigned kQuadThreads = 256;

/// As many threads as a row of quads keeps busy, whole warps, at most so many.
inline unsigned quad_threads(int64_t cols, unsigned most = kQuadThreads) {
  return std::min(most, ceil_div(std::max<int64_t>(cols, 1), 4 * 32) * 32);
}

/// How a [rows, cols] matrix is spread over blocks: each takes one piece of one row, each thread one quad of it.
struct QuadGrid {
  int64_t cols = 0;
  unsigned pieces = 1;  // blocks a row
  bool aligned = false;
};
inline QuadGrid quad_grid(int64_t cols, bool aligned) {
  return {cols, ceil_div(cols, int64_t{4} * quad_threads(cols)), aligned};
}
inline LaunchShape quad_launch(const QuadGrid& grid, int64_t rows) {
  return {.grid = {static_cast<unsigned>(rows) * grid.pieces}, .block = {quad_threads(grid.cols)}};
}

/// This thread's quad; nothing where count <= 0.
struct QuadPlace {
  int64_t row, col, count;
};
__device__ __forceinline__ QuadPlace quad_place(const QuadGrid& grid) {
  const unsigned row = block_index().x / grid.pieces, piece = block_index().x % grid.pieces;
  const int64_t col = int64_t{4} * (piece * block_dims().x + thread_index().x);
  return {row, col, grid.cols - col};
}

}  // namespace chorale::worker::inline SIMT
