#include "worker/kv/kv_cache.h"

namespace chorale::worker {
namespace {
constexpr int kMaxHeadDim = 256;

int64_t padded(int head_dim) { return (head_dim + 15) / 16 * 16; }
}  // namespace

int64_t kv_bytes_per_block(const KvCacheSpec& spec) {
  const int64_t elements = int64_t{spec.num_kv_heads} * kBlockTokens * (spec.head_dim + padded(spec.head_dim));
  return int64_t{spec.num_layers} * elements * static_cast<int64_t>(size_of(spec.dtype));
}

KvCache::KvCache(const KvCacheSpec& spec, int64_t num_blocks) : spec_(spec), num_blocks_(num_blocks) {
  if (spec.dtype != DType::kF32 && spec.dtype != DType::kBF16)
    fail(ErrorCode::kInvalidArgument, "the KV cache holds f32 or bf16, not {}", to_string(spec.dtype));
  if (spec.head_dim < 1 || spec.head_dim > kMaxHeadDim)
    fail(ErrorCode::kInvalidArgument, "head_dim is {}; attention handles 1 to {}", spec.head_dim, kMaxHeadDim);
  if (num_blocks < 0 || num_blocks > (int64_t{1} << 31) / kBlockTokens)
    fail(ErrorCode::kInvalidArgument, "{} KV blocks; slots are 32-bit", num_blocks);
  for (int i = 0; i < spec.num_layers; ++i) {
    k_.emplace_back(spec.dtype, Shape{num_blocks, spec.num_kv_heads, spec.head_dim, kBlockTokens});
    v_.emplace_back(spec.dtype, Shape{num_blocks, spec.num_kv_heads, kBlockTokens, padded(spec.head_dim)});
  }
}

KvLayer KvCache::layer(int layer) const {
  CHECK(layer >= 0 && layer < spec_.num_layers);
  return {k_[static_cast<size_t>(layer)], v_[static_cast<size_t>(layer)], spec_.num_kv_heads, spec_.head_dim};
}

}  // namespace chorale::worker
