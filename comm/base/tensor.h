// TensorView names memory that somebody else owns: pointer, dtype, device, shape (row-major, dense). Tensor owns one
// buffer of the host (64-byte aligned) or of a device. Neither knows a model or a job, and neither computes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "comm/base/device.h"
#include "comm/base/dtype.h"
#include "comm/base/error.h"

namespace chorale {

constexpr int kMaxDims = 5;

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) : num_dims_(static_cast<int>(dims.size())) {
    CHECK_LE(dims.size(), static_cast<size_t>(kMaxDims));
    int i = 0;
    for (int64_t d : dims) dims_[i++] = d;
  }
  int num_dims() const { return num_dims_; }
  int64_t operator[](int i) const {
    CHECK(i >= 0 && i < num_dims_);
    return dims_[i];
  }
  int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < num_dims_; ++i) n *= dims_[i];
    return n;
  }
  bool operator==(const Shape&) const = default;
  std::string to_string() const;  // "[2, 3]"

 private:
  std::array<int64_t, kMaxDims> dims_{};
  int num_dims_ = 0;
};

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<Float16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  DeviceKind device = DeviceKind::kCpu;
  Shape shape;

  size_t size_bytes() const { return static_cast<size_t>(shape.num_elements()) * size_of(dtype); }
  template <typename T>
  T* as() const {
    CHECK_EQ(static_cast<int>(dtype), static_cast<int>(DTypeOf<T>::value));
    return static_cast<T*>(data);
  }
  /// Rows [begin, end) of the first dimension.
  TensorView rows(int64_t begin, int64_t end) const;
};

class Tensor {
 public:
  Tensor() = default;
  /// Zeroed memory, 64-byte aligned; large buffers are advised to use huge pages. Throws Error{kResourceExhausted}.
  Tensor(DType dtype, Shape shape);
  /// Zeroed memory of `device`, which must outlive it.
  Tensor(Device& device, DType dtype, Shape shape);
  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }  // NOLINT(google-explicit-constructor)
  const Shape& shape() const { return view_.shape; }
  template <typename T>
  T* as() const {
    return view_.as<T>();
  }
  Tensor clone() const;  // REQUIRES: memory that the host can read

 private:
  struct Free {
    size_t mapped_bytes = 0;   // 0: from aligned_alloc
    Device* device = nullptr;  // nullptr: the host's
    size_t device_bytes = 0;
    void operator()(void* p) const;
  };
  std::unique_ptr<void, Free> buffer_{nullptr, Free{}};
  TensorView view_;
};

/// Memory of `device`, or of the host where it is nullptr.
Tensor make_tensor(Device* device, DType dtype, Shape shape);
/// A copy of host memory on a device, in the stream's order; `host` is free to reuse. REQUIRES: a device.
Tensor copy_to_device(const DeviceStream& where, const TensorView& host);

}  // namespace chorale
