// What the attention kernels share: the batch as a kernel parameter, and how a warp finds its place in it from device
// memory alone, since the host knows only the number of rows, sequences and heads. No arithmetic on scores lives here.
#pragma once

#include "worker/kernels/cuda/kv_layout.cuh"
#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/ops/attention.h"

namespace chorale::worker::inline SIMT {

/// AttentionArgs with the cache's type.
template <typename T>
struct AttentionBatch {
  Rows<const float> q;
  Rows<float> out_f32;  // one of the three is set
  Rows<BFloat16> out_bf16;
  Rows<Float16> out_f16;
  const T* k;
  const T* v;
  KvPlace place;
  int num_kv_heads;
  int num_rows, num_heads, num_sequences;
  const int32_t* kv_head_of;
  const int32_t* query_start;
  const int32_t* context_len;
  const int32_t* split_start;
  const int32_t* block_table;
  int64_t block_table_stride;
  float scale, softcap;
  int window;
  AttentionMask mask;

  /// Blocks of one sequence's table.
  __device__ const int32_t* blocks_of(int sequence) const { return block_table + sequence * block_table_stride; }
  __device__ void store_out(int64_t row, int64_t column, float value) const {
    if (out_bf16.data != nullptr)
      store(out_bf16.row(row)[column], value);
    else if (out_f16.data != nullptr)
      store(out_f16.row(row)[column], value);
    else
      store(out_f32.row(row)[column], value);
  }
};

template <typename T>
AttentionBatch<T> batch_of(const AttentionArgs& args) {
  const KvLayer& cache = args.cache;
  AttentionBatch<T> batch{};
  batch.q = rows_of<const float>(args.q);
  switch (args.out.dtype) {
    case DType::kBF16: batch.out_bf16 = rows_of<BFloat16>(args.out); break;
    case DType::kF16: batch.out_f16 = rows_of<Float16>(args.out); break;
    default: batch.out_f32 = rows_of<float>(args.out);
  }
  batch.k = static_cast<const T*>(cache.k.data);
  batch.v = static_cast<const T*>(cache.v.data);
  batch.place = {cache.order, cache.head_dim, static_cast<int>(cache.padded_head_dim())};
  batch.num_kv_heads = cache.num_kv_heads;
  batch.num_rows = static_cast<int>(args.q.rows);
  batch.num_heads = args.num_heads;
  batch.num_sequences = args.num_sequences;
  batch.kv_head_of = args.kv_head_of;
  batch.query_start = args.query_start;
  batch.context_len = args.context_len;
  batch.split_start = args.split_start;
  batch.block_table = args.block_table;
  batch.block_table_stride = args.block_table_stride;
  batch.scale = args.scale;
  batch.softcap = args.softcap;
  batch.window = args.window;
  batch.mask = args.mask;
  return batch;
}

/// Splits that the widest row of the block table may have.
inline int max_splits(const AttentionArgs& args) {
  constexpr int kSplitBlocks = kSplitKeys / kBlockTokens;
  return static_cast<int>((args.block_table_stride + kSplitBlocks - 1) / kSplitBlocks);
}

/// Keys [begin, end) that a query token sees.
struct KeyRange {
  int begin, end;
};
/// `token` counts from 0 in its sequence, which has `query_len` of them at the end of `context` keys.
template <typename T>
__device__ __forceinline__ KeyRange visible_keys(const AttentionBatch<T>& batch, int context, int query_len,
                                                 int token) {
  if (batch.mask == AttentionMask::kFull) return {0, context};
  const int end = context - query_len + token + 1, begin = batch.window > 0 ? end - batch.window : 0;
  return {begin > 0 ? begin : 0, end};
}

__device__ __forceinline__ int count_bits(uint32_t x) {
  x = x - (x >> 1 & 0x55555555u);
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  return static_cast<int>(((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24);
}

/// Of the highest bit that is set; x is not 0.
__device__ __forceinline__ int highest_bit(uint32_t x) {
#pragma unroll
  for (int shift = 1; shift < 32; shift *= 2) x |= x >> shift;
  return count_bits(x) - 1;
}

/// The largest i in [0, count) with start(i) <= value; start ascends and start(0) <= value. 32 probes at a time; the
/// whole warp calls.
template <typename Start>
__device__ __forceinline__ int find_last(int count, int value, const Start& start) {
  int low = 0;
  while (count > 1) {
    const int step = (count + 31) / 32, probe = static_cast<int>(lane()) * step;
    const int found = highest_bit(ballot(probe < count && start(low + probe) <= value));
    low += found * step;
    count = count - found * step < step ? count - found * step : step;
  }
  return low;
}

/// The query heads [first, first + size) that read one KV head.
struct HeadGroup {
  int kv_head, first, size;
};
/// The last group with start(first head, KV head) <= value; start ascends and is <= value for the first group. The
/// whole warp calls.
template <typename T, typename Start>
__device__ __forceinline__ HeadGroup find_group(const AttentionBatch<T>& batch, int value, const Start& start) {
  HeadGroup group{0, 0, 0};
  const auto kv_head = [&](int head) { return head < batch.num_heads ? batch.kv_head_of[head] : -1; };
  for (int base = 0; base < batch.num_heads; base += 32) {
    const int head = base + static_cast<int>(lane()), kv = kv_head(head);
    const bool begins = kv >= 0 && (head == 0 || kv_head(head - 1) != kv);
    const uint32_t found = ballot(begins && start(head, kv) <= value);
    if (found != 0) group.first = base + highest_bit(found);
  }
  group.kv_head = batch.kv_head_of[group.first];
  for (int base = group.first, same = 32; same == 32; base += 32) {
    same = count_bits(ballot(kv_head(base + static_cast<int>(lane())) == group.kv_head));
    group.size += same;
  }
  return group;
}

}  // namespace chorale::worker::inline SIMT
