// Where an element of a cache block lies: worker/kv/kv_cache.h's KvOrder as index functions. Kernels that take single
// elements and the tests use them; the tensor core kernels load whole fragments instead.
#pragma once

#include "worker/kernels/cuda/simt.cuh"
#include "worker/kv/kv_cache.h"

namespace chorale::worker::inline SIMT {

/// The shape of one block of one KV head.
struct KvPlace {
  KvOrder order;
  int head_dim;
  int padded_head_dim;

  __host__ __device__ int key_elements() const {
    return (order == KvOrder::kFragments ? padded_head_dim : head_dim) * kBlockTokens;
  }
  __host__ __device__ int value_elements() const { return padded_head_dim * kBlockTokens; }

  /// Of K: offset of the key `key` (0 .. 15), dimension `dim`.
  __host__ __device__ int key_offset(int key, int dim) const {
    return order == KvOrder::kFragments ? fragment_offset(dim / 16, key, dim % 16) : dim * kBlockTokens + key;
  }
  __host__ __device__ int value_offset(int key, int dim) const {
    return order == KvOrder::kFragments ? fragment_offset(dim / 16, dim % 16, key) : key * padded_head_dim + dim;
  }

 private:
  /// Element (k, n) of the 16 x 16 matrix `step`: n = 8 tile + g is the product's column, k = 2 t + 8 reg + half is
  /// what it sums over.
  __host__ __device__ static int fragment_offset(int step, int n, int k) {
    const int g = n % 8, tile = n / 8, half = k % 2, t = k / 2 % 4, reg = k / 8;
    return (step * 32 + 4 * g + t) * 8 + 4 * tile + 2 * reg + half;
  }
};

}  // namespace chorale::worker::inline SIMT
