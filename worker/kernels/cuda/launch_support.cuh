// What kernel files share besides simt.cuh: rows of a matrix as a kernel parameter, and stores that round.
#pragma once

#include "comm/base/error.h"
#include "worker/kernels/cuda/simt.cuh"
#include "worker/ops/matrix_view.h"

namespace chorale::worker::inline SIMT {

/// MatrixView with its type, small enough for a parameter.
template <typename T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;  // elements between the starts of two rows
  __host__ __device__ T* row(int64_t r) const { return data + r * stride; }
};
template <typename T>
Rows<T> rows_of(const MatrixView& m) {
  CHECK_EQ(size_of(m.dtype), sizeof(T));
  return {static_cast<T*>(m.data), m.row_stride};
}

inline unsigned ceil_div(int64_t value, int64_t divisor) {
  return static_cast<unsigned>((value + divisor - 1) / divisor);
}

__device__ __forceinline__ void store(float& to, float value) { to = value; }
__device__ __forceinline__ void store(BFloat16& to, float value) { to = to_bf16(value); }
__device__ __forceinline__ void store(Float16& to, float value) { to = to_f16(value); }

/// fn(T()) for the element type T that `dtype` names: float32, bf16 or f16.
template <typename Fn>
void as_type(DType dtype, const Fn& fn) {
  switch (dtype) {
    case DType::kBF16: return fn(BFloat16());
    case DType::kF16: return fn(Float16());
    default: break;
  }
  CHECK(dtype == DType::kF32);
  fn(float());
}

}  // namespace chorale::worker::inline SIMT
