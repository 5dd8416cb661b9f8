// Writes new keys and values into the paged cache, each rounded once to its type (N5). A thread takes one element of K
// and the one of V beside it: reads 8 bytes, neighbours beside each other, writes 2 or 4 bytes to each of two places.
// Padding is not written, nor are rows without a slot. No sums.
#include "worker/kernels/cuda/kv_layout.cuh"
#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/kv_write.h"

namespace chorale::worker {
namespace {

constexpr unsigned kThreads = 256;

template <typename T>
struct Params {
  Rows<const float> k, v;
  const int32_t* slots;  // [rows]
  T* cache_k;
  T* cache_v;
  KvPlace place;
  int num_kv_heads;
  int64_t rows;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) kv_write_kernel(Params<T> p) {
  const int64_t task = int64_t{block_index().x} * kThreads + thread_index().x;
  const int width = p.num_kv_heads * p.place.head_dim;
  const int64_t row = task / width;
  if (row >= p.rows) return;
  const int column = static_cast<int>(task % width), head = column / p.place.head_dim, dim = column % p.place.head_dim;
  const int32_t slot = p.slots[row];
  if (slot < 0) return;
  const int key = slot % kBlockTokens;
  const int64_t place = int64_t{slot / kBlockTokens} * p.num_kv_heads + head;
  store(p.cache_k[place * p.place.key_elements() + p.place.key_offset(key, dim)], p.k.row(row)[column]);
  store(p.cache_v[place * p.place.value_elements() + p.place.value_offset(key, dim)], p.v.row(row)[column]);
}

template <typename T>
void launch_as(OpContext& ctx, const KvWriteArgs& args) {
  const KvLayer& cache = args.cache;
  const int64_t tasks = args.k.rows * cache.num_kv_heads * cache.head_dim;
  if (tasks == 0) return;
  launch(ctx, kv_write_kernel<T>, {.grid = {ceil_div(tasks, kThreads)}, .block = {kThreads}},
         Params<T>{rows_of<const float>(args.k), rows_of<const float>(args.v), args.slots,
                   static_cast<T*>(cache.k.data), static_cast<T*>(cache.v.data),
                   KvPlace{cache.order, cache.head_dim, static_cast<int>(cache.padded_head_dim())}, cache.num_kv_heads,
                   args.k.rows});
}

void kv_write_launch(OpContext& ctx, const KvWriteArgs& args) {
  as_type(args.cache.dtype(), [&](auto type) { launch_as<decltype(type)>(ctx, args); });
}

const KernelTable<KvWriteArgs>::Add kAdd({"kv_write_elements", kKernelDevice, parallel::Isa::kScalar, 0, supports_all,
                                          kv_write_launch});

}  // namespace
}  // namespace chorale::worker
