#include "worker/kv/kv_cache.h"

namespace chorale::worker {
namespace {
constexpr int kMaxHeadDim = 256;

int64_t padded(int head_dim) { return (head_dim + 15) / 16 * 16; }

int64_t key_rows(const KvCacheSpec& spec) {
  return spec.order == KvOrder::kFragments ? padded(spec.head_dim) : spec.head_dim;
}
}  // namespace

KvOrder kv_order(DeviceKind device, DType dtype) {
  return device == DeviceKind::kCpu || dtype == DType::kF32 ? KvOrder::kVectors : KvOrder::kFragments;
}

int64_t kv_bytes_per_block(const KvCacheSpec& spec) {
  const int64_t elements = int64_t{spec.num_kv_heads} * kBlockTokens * (key_rows(spec) + padded(spec.head_dim));
  return int64_t{spec.num_layers} * elements * static_cast<int64_t>(size_of(spec.dtype));
}

KvCache::KvCache(Device* device, const KvCacheSpec& spec, int64_t num_blocks) : spec_(spec), num_blocks_(num_blocks) {
  const DeviceKind kind = device == nullptr ? DeviceKind::kCpu : device->kind();
  const bool is_known = spec.dtype == DType::kF32 || spec.dtype == DType::kBF16 ||
                        (spec.dtype == DType::kF16 && kind != DeviceKind::kCpu);
  if (!is_known)
    fail(ErrorCode::kInvalidArgument, "the KV cache holds f32, bf16, or f16 on a GPU, not {} on {}",
         to_string(spec.dtype), to_string(kind));
  spec_.order = kv_order(kind, spec.dtype);
  if (spec.head_dim < 1 || spec.head_dim > kMaxHeadDim)
    fail(ErrorCode::kInvalidArgument, "head_dim is {}; attention handles 1 to {}", spec.head_dim, kMaxHeadDim);
  if (num_blocks < 0 || num_blocks > (int64_t{1} << 31) / kBlockTokens)
    fail(ErrorCode::kInvalidArgument, "{} KV blocks; slots are 32-bit", num_blocks);
  for (int i = 0; i < spec.num_layers; ++i) {
    k_.push_back(make_tensor(device, spec.dtype, {num_blocks, spec.num_kv_heads, key_rows(spec_), kBlockTokens}));
    v_.push_back(make_tensor(device, spec.dtype, {num_blocks, spec.num_kv_heads, kBlockTokens, padded(spec.head_dim)}));
  }
}

KvLayer KvCache::layer(int layer) const {
  CHECK(layer >= 0 && layer < spec_.num_layers);
  return {k_[static_cast<size_t>(layer)], v_[static_cast<size_t>(layer)], spec_.num_kv_heads, spec_.head_dim,
          spec_.order};
}

}  // namespace chorale::worker
