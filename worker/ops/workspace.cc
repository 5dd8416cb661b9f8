#include "worker/ops/workspace.h"

#include <algorithm>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {
constexpr size_t kAlignment = 256;  // what cublasLtMatmul asks of its workspace; also what cudaMalloc gives
}  // namespace

Workspace::Workspace(Device* device, size_t bytes) : device_(device) {
  chunks_.push_back(make_chunk(std::max(bytes, kAlignment)));
}

Tensor Workspace::make_chunk(size_t bytes) const {
  return make_tensor(device_, DType::kU8, {static_cast<int64_t>(bytes)});
}

void* Workspace::take_bytes(size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (chunk_ < chunks_.size() && used_ + bytes > chunks_[chunk_].view().size_bytes()) {
    ++chunk_;
    used_ = 0;
  }
  if (chunk_ == chunks_.size()) {
    const size_t size = std::max(bytes, 2 * chunks_.back().view().size_bytes());
    try {
      chunks_.push_back(make_chunk(size));
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kResourceExhausted || size == bytes) throw;
      chunks_.push_back(make_chunk(bytes));  // no room for spare room
    }
  }
  void* p = static_cast<std::byte*>(chunks_[chunk_].view().data) + used_;
  used_ += bytes;
  return p;
}

void Workspace::release(size_t chunk, size_t used) {
  chunk_ = chunk;
  used_ = used;
}

size_t Workspace::capacity_bytes() const {
  size_t bytes = 0;
  for (const Tensor& chunk : chunks_) bytes += chunk.view().size_bytes();
  return bytes;
}

}  // namespace chorale::worker
