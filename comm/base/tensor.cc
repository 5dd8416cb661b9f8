#include "comm/base/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace chorale {
namespace {
constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;
}  // namespace

std::string Shape::to_string() const {
  std::string text = "[";
  for (int i = 0; i < num_dims_; ++i) text += (i > 0 ? ", " : "") + std::to_string(dims_[i]);
  return text + "]";
}

TensorView TensorView::rows(int64_t begin, int64_t end) const {
  CHECK(shape.num_dims() >= 1 && begin >= 0 && begin <= end && end <= shape[0]);
  TensorView part = *this;
  const size_t row_bytes = shape[0] == 0 ? 0 : size_bytes() / static_cast<size_t>(shape[0]);
  part.data = static_cast<std::byte*>(data) + static_cast<size_t>(begin) * row_bytes;
  switch (shape.num_dims()) {
    case 1: part.shape = {end - begin}; break;
    case 2: part.shape = {end - begin, shape[1]}; break;
    case 3: part.shape = {end - begin, shape[1], shape[2]}; break;
    case 4: part.shape = {end - begin, shape[1], shape[2], shape[3]}; break;
    default: part.shape = {end - begin, shape[1], shape[2], shape[3], shape[4]}; break;
  }
  return part;
}

void Tensor::Free::operator()(void* p) const {
  if (device != nullptr)
    device->release(p, device_bytes);
  else if (mapped_bytes > 0)
    munmap(p, mapped_bytes);
  else
    std::free(p);
}

Tensor::Tensor(DType dtype, Shape shape) {
  view_ = {nullptr, dtype, DeviceKind::kCpu, shape};
  const size_t bytes = view_.size_bytes();
  if (bytes == 0) return;
  void* p = nullptr;
  Free deleter;
  if (bytes >= kHugePage) {  // 4 KiB pages cost 10 % of DRAM bandwidth
    deleter.mapped_bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    p = mmap(nullptr, deleter.mapped_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) p = nullptr;
    if (p != nullptr) madvise(p, deleter.mapped_bytes, MADV_HUGEPAGE);
  } else {
    p = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    if (p != nullptr) std::memset(p, 0, bytes);
  }
  if (p == nullptr)
    fail(ErrorCode::kResourceExhausted, "cannot allocate {} bytes for a {} tensor {}", bytes, to_string(dtype),
         shape.to_string());
  buffer_ = std::unique_ptr<void, Free>(p, deleter);
  view_.data = p;
}

Tensor::Tensor(Device& device, DType dtype, Shape shape) {
  view_ = {nullptr, dtype, device.kind(), shape};
  const size_t bytes = view_.size_bytes();
  if (bytes == 0) return;
  buffer_ = std::unique_ptr<void, Free>(device.allocate(bytes), Free{.device = &device, .device_bytes = bytes});
  view_.data = buffer_.get();
}

Tensor make_tensor(Device* device, DType dtype, Shape shape) {
  return device == nullptr ? Tensor(dtype, shape) : Tensor(*device, dtype, shape);
}

Tensor copy_to_device(const DeviceStream& where, const TensorView& host) {
  CHECK(where && host.device == DeviceKind::kCpu);
  Tensor copy(*where.device, host.dtype, host.shape);
  where.stream->copy(copy.view().data, host.data, host.size_bytes(), CopyKind::kHostToDevice);
  return copy;
}

Tensor Tensor::clone() const {
  CHECK(view_.device != DeviceKind::kCuda);
  Tensor copy(view_.dtype, view_.shape);
  copy.view_.device = view_.device;
  if (view_.data != nullptr) std::memcpy(copy.view_.data, view_.data, view_.size_bytes());
  return copy;
}

}  // namespace chorale
