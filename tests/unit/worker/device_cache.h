// A cache on the host in any of the orders of worker/kv/kv_cache.h, filled element by element: what the tests of
// kv_write and attention on devices compare with and start from.
#pragma once

#include "tests/unit/worker/device_test_support.h"
#include "worker/kernels/cuda/kv_layout.cuh"

namespace chorale::worker {

inline void set_element(const TensorView& t, int64_t i, float value) {
  switch (t.dtype) {
    case DType::kBF16: t.as<BFloat16>()[i] = to_bf16(value); break;
    case DType::kF16: t.as<Float16>()[i] = to_f16(value); break;
    default: t.as<float>()[i] = value;
  }
}
inline float rounded(float value, DType dtype) {
  if (dtype == DType::kBF16) return to_float(to_bf16(value));
  return dtype == DType::kF16 ? to_float(to_f16(value)) : value;
}

struct CacheShape {
  DType dtype;
  KvOrder order;
  int num_kv_heads, head_dim;
  int padded() const { return (head_dim + 15) / 16 * 16; }
  KvPlace place() const { return {order, head_dim, padded()}; }
  KvLayer layer(const TensorView& k, const TensorView& v) const { return {k, v, num_kv_heads, head_dim, order}; }
  Tensor keys(int64_t blocks) const {
    return Tensor(dtype, {blocks, num_kv_heads, order == KvOrder::kFragments ? padded() : head_dim, kBlockTokens});
  }
  Tensor values(int64_t blocks) const { return Tensor(dtype, {blocks, num_kv_heads, kBlockTokens, padded()}); }
  /// One token's keys and values, [num_kv_heads * head_dim] each.
  void write(const Tensor& k, const Tensor& v, int32_t slot, const float* key, const float* value) const {
    for (int head = 0; head < num_kv_heads; ++head)
      for (int d = 0; d < head_dim; ++d) {
        const int64_t at = int64_t{slot / kBlockTokens} * num_kv_heads + head;
        set_element(k.view(), at * place().key_elements() + place().key_offset(slot % kBlockTokens, d),
                    key[head * head_dim + d]);
        set_element(v.view(), at * place().value_elements() + place().value_offset(slot % kBlockTokens, d),
                    value[head * head_dim + d]);
      }
  }
};

}  // namespace chorale::worker
