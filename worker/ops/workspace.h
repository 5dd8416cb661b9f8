// Scratch memory of one compute thread's ops: a bump arena with mark and release. Ops take from it and give back before
// they return, so that a step allocates nothing once the arena has grown to the largest step seen. It holds no results.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "comm/base/tensor.h"

namespace chorale::worker {

/// Thread: the one that owns the OpContext; pool threads only use memory that it took for them.
class Workspace {
 public:
  /// Room for `bytes` at once without growing. More is taken from the system when needed and kept.
  explicit Workspace(size_t bytes = size_t{1} << 20) : Workspace(nullptr, bytes) {}
  /// Takes its memory from `device`, which must outlive it; nullptr is the host.
  Workspace(Device* device, size_t bytes);

  /// `count` elements, aligned to 64 bytes (device: 256), not initialised. Valid until the scope around it ends.
  template <typename T>
  T* take(int64_t count) {
    return static_cast<T*>(take_bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  void* take_bytes(size_t bytes);
  size_t capacity_bytes() const;

  /// Gives back on destruction what was taken since its construction. Scopes nest.
  class Scope {
   public:
    explicit Scope(Workspace& workspace) : workspace_(workspace), chunk_(workspace.chunk_), used_(workspace.used_) {}
    ~Scope() { workspace_.release(chunk_, used_); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Workspace& workspace_;
    size_t chunk_;
    size_t used_;
  };

 private:
  void release(size_t chunk, size_t used);
  Tensor make_chunk(size_t bytes) const;
  Device* device_;              // nullptr: the host
  std::vector<Tensor> chunks_;  // pointers stay valid while the arena grows
  size_t chunk_ = 0;            // the chunk being filled
  size_t used_ = 0;             // bytes of it
};

}  // namespace chorale::worker
