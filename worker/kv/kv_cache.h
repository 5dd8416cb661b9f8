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

struct KvCacheSpec {
  DType dtype = DType::kF32;  // kF32 | kBF16
  int num_layers = 0;         // of this rank's stage
  int num_kv_heads = 0;       // stored by this rank
  int head_dim = 0;           // 1 .. 256
};

/// What attention and kv_write see of one layer. Keys lie transposed, so that a vector lane is a key; the rows of V are
/// padded to a multiple of 16 so that a vector lane is an output.
struct KvLayer {
  TensorView k;  // [num_blocks, num_kv_heads, head_dim, 16]
  TensorView v;  // [num_blocks, num_kv_heads, 16, padded_head_dim]
  int num_kv_heads = 0;
  int head_dim = 0;

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
  KvCache(const KvCacheSpec& spec, int64_t num_blocks);
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
