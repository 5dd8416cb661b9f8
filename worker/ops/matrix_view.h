// Rows of a matrix that may be wider than the part an op works on: q inside a fused [tokens, q + k + v] buffer, one
// half of a fused gate-up product. Every op takes its activations this way; nothing here owns memory.
#pragma once

#include <cstdint>

#include "comm/base/dtype.h"
#include "comm/base/error.h"
#include "comm/base/tensor.h"

namespace chorale::worker {

struct MatrixView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  DeviceKind device = DeviceKind::kCpu;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // elements between the starts of two rows; >= cols

  MatrixView() = default;
  MatrixView(void* data, DType dtype, int64_t rows, int64_t cols, int64_t row_stride,
             DeviceKind device = DeviceKind::kCpu)
      : data(data), dtype(dtype), device(device), rows(rows), cols(cols), row_stride(row_stride) {}
  /// The first dimension is rows, the others are flattened into columns; a vector is one row.
  MatrixView(const TensorView& t)  // NOLINT(google-explicit-constructor)
      : data(t.data), dtype(t.dtype), device(t.device), rows(t.shape.num_dims() > 1 ? t.shape[0] : 1) {
    cols = rows == 0 ? 0 : t.shape.num_elements() / rows;
    row_stride = cols;
  }
  MatrixView(const Tensor& t) : MatrixView(t.view()) {}  // NOLINT(google-explicit-constructor)

  explicit operator bool() const { return data != nullptr; }
  /// Columns [begin, end) of every row.
  MatrixView columns(int64_t begin, int64_t end) const {
    CHECK(0 <= begin && begin <= end && end <= cols);
    return {static_cast<std::byte*>(data) + static_cast<size_t>(begin) * size_of(dtype),
            dtype,
            rows,
            end - begin,
            row_stride,
            device};
  }
  /// Rows [begin, end).
  MatrixView row_range(int64_t begin, int64_t end) const {
    CHECK(0 <= begin && begin <= end && end <= rows);
    auto* p = static_cast<std::byte*>(data) + static_cast<size_t>(begin * row_stride) * size_of(dtype);
    return {p, dtype, end - begin, cols, row_stride, device};
  }
  template <typename T>
  T* row(int64_t r) const {
    return static_cast<T*>(data) + r * row_stride;
  }
};

}  // namespace chorale::worker
