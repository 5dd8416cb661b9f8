// The paged cache of keys and values of one rank's layers: memory and layout. Which block holds what is decided by the
// coordinator and comes with each step plan; written by kv_write, read by attention.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/base/dtype.h"
#include "comm/base/tensor.h"
#include "parallel/layout.h"

namespace chorale::worker {

constexpr int kBlockTokens = parallel::kBlockTokens;  // 16 tokens a block; also the keys of one attention step (N6)

/// How the 16 keys of a block and head lie in memory.
enum class KvOrder : uint8_t {
  /// The CPU, and float32 on any device. Keys lie transposed, so that a vector lane is a key; the rows of V are padded
  /// to a multiple of 16 so that a vector lane is an output.
  ///   K [head_dim, 16], V [16, padded_head_dim]
  kVectors,
  /// 16-bit types on a GPU: as the tensor cores take them (worker/kernels/cuda/matrix_instructions.cuh), one load of 8
  /// elements a lane for 16 x 16 of them. With lane l, g = l / 4, t = l % 4, element j = 4 tile + 2 reg + half:
  ///   K [padded_head_dim / 16 (s), 32 (l), 8 (j)]: key 8 tile + g, dimension 16 s + 2 t + 8 reg + half
  ///   V [padded_head_dim / 16 (s), 32 (l), 8 (j)]: key 2 t + 8 reg + half, dimension 16 s + 8 tile + g
  kFragments
};
KvOrder kv_order(DeviceKind device, DType dtype);

struct KvCacheSpec {
  DType dtype = DType::kF32;  // kF32 | kBF16, on a GPU also kF16
  int num_layers = 0;         // of this rank's stage
  int num_kv_heads = 0;       // stored by this rank
  int head_dim = 0;           // 1 .. 256
  KvOrder order = KvOrder::kVectors;
};

/// What attention and kv_write see of one layer.
struct KvLayer {
  TensorView k;  // [num_blocks, num_kv_heads, head_dim or padded_head_dim, 16]
  TensorView v;  // [num_blocks, num_kv_heads, 16, padded_head_dim]
  int num_kv_heads = 0;
  int head_dim = 0;
  KvOrder order = KvOrder::kVectors;

  DType dtype() const { return k.dtype; }
  int64_t num_blocks() const { return k.shape[0]; }
  int64_t padded_head_dim() const { return v.shape[3]; }
};

/// Bytes of one block in all layers of the rank, K and V.
int64_t kv_bytes_per_block(const KvCacheSpec& spec);

class KvCache {
 public:
  KvCache() = default;
  /// Zeroed, so that the padding of V is finite. Throws Error{kResourceExhausted}, Error{kInvalidArgument}.
  KvCache(const KvCacheSpec& spec, int64_t num_blocks) : KvCache(nullptr, spec, num_blocks) {}
  /// In memory of `device`, which must outlive it; nullptr is the host's.
  KvCache(Device* device, const KvCacheSpec& spec, int64_t num_blocks);
  const KvCacheSpec& spec() const { return spec_; }
  int64_t num_blocks() const { return num_blocks_; }
  /// `layer` counts from 0 within the rank's stage.
  KvLayer layer(int layer) const;

 private:
  KvCacheSpec spec_;
  int64_t num_blocks_ = 0;
  std::vector<Tensor> k_, v_;  // [num_layers]
};

}  // namespace chorale::worker
