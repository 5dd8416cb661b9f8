// Attention for any head_dim, cache type and order: worker/ops/attention.h operation by operation, so the bits of the
// scalar CPU kernel. A block takes one query row of one head; its warps take one split of 256 keys each, then warp 0
// folds what they left in shared memory, left to right, and they go on with the next splits. A lane is a key while a
// warp computes the scores of two blocks of 16 keys, and head_dim / 32 outputs while it adds values.
// Reads q once a warp, each key and value once a query head; writes the row. q is not rounded.
#include "worker/kernels/cuda/attention_batch.cuh"
#include "worker/kernels/cuda/math.cuh"
#include "worker/ops/kernel.h"

namespace chorale::worker {
namespace {

constexpr int kMaxWarps = 4;
constexpr int kLaneDims = 8;  // outputs of a lane: head_dim is at most 256

struct Partial {
  float max = -infinity();
  float sum = 0.0f;
  float acc[kLaneDims] = {};  // dimension lane + 32 i
};

template <typename T>
struct Params {
  AttentionBatch<T> batch;
};

template <typename T>
struct Query {
  const AttentionBatch<T>& batch;
  const float* q;         // [head_dim]
  const int32_t* blocks;  // of its sequence
  int kv_head;
  KeyRange keys;
  float* p;  // [32], this warp's share of shared memory

  __device__ int64_t place(int key) const { return int64_t{blocks[key / kBlockTokens]} * batch.num_kv_heads + kv_head; }
  __device__ float score(int key) const {
    const T* k = batch.k + place(key) * batch.place.key_elements();
    float dot = 0.0f;
    for (int d = 0; d < batch.place.head_dim; ++d)
      dot = fma(q[d], to_f32(k[batch.place.key_offset(key % kBlockTokens, d)]), dot);
    const float scaled = dot * batch.scale;
    return batch.softcap > 0.0f ? batch.softcap * tanh_of(scaled / batch.softcap) : scaled;
  }
};

__device__ float larger(float a, float b) { return a > b ? a : b; }

/// acc = acc * rescale, then the keys [begin, end) of one block, ascending.
template <typename T>
__device__ void add_values(const Query<T>& query, int begin, int end, float rescale, Partial& split) {
  const KvPlace& place = query.batch.place;
  const T* v = query.batch.v + query.place(begin) * place.value_elements();
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) split.acc[i] = split.acc[i] * rescale;
  for (int key = begin; key < end; ++key) {
    const float p = query.p[key % 32];
#pragma unroll
    for (int i = 0; i < kLaneDims; ++i) {
      const int d = static_cast<int>(lane()) + 32 * i;
      if (d < place.head_dim) split.acc[i] = fma(p, to_f32(v[place.value_offset(key % kBlockTokens, d)]), split.acc[i]);
    }
  }
}

/// Adds the visible keys of the blocks that start at `first` (a multiple of 32) and `first` + 16.
template <typename T>
__device__ void add_two_blocks(const Query<T>& query, int first, KeyRange keys, Partial& split) {
  const int middle = first + kBlockTokens, key = first + static_cast<int>(lane());
  const bool is_visible = key >= keys.begin && key < keys.end;
  const float score = is_visible ? query.score(key) : -infinity();
  float block_max = score;
#pragma unroll
  for (unsigned width = kBlockTokens / 2; width > 0; width /= 2)
    block_max = larger(block_max, shuffle_xor(block_max, width));
  const float max1 = larger(split.max, shuffle(block_max, 0)), max2 = larger(max1, shuffle(block_max, 16));
  const float p = is_visible ? exp_of(score - (lane() < 16 ? max1 : max2)) : 0.0f;
  float sum = p;
#pragma unroll
  for (unsigned width = kBlockTokens / 2; width > 0; width /= 2) sum = sum + shuffle_xor(sum, width);
  const float sum1 = shuffle(sum, 0), sum2 = shuffle(sum, 16);
  query.p[lane()] = p;
  sync_warp();
  if (keys.begin < middle) {
    const float rescale = exp_of(split.max - max1);
    split.sum = fma(split.sum, rescale, sum1);
    add_values(query, keys.begin > first ? keys.begin : first, keys.end < middle ? keys.end : middle, rescale, split);
  }
  if (keys.end > middle) {
    const float rescale = exp_of(max1 - max2);
    split.sum = fma(split.sum, rescale, sum2);
    add_values(query, keys.begin > middle ? keys.begin : middle,
               keys.end < middle + kBlockTokens ? keys.end : middle + kBlockTokens, rescale, split);
  }
  split.max = max2;
  sync_warp();
}

template <typename T>
__device__ Partial attend_split(const Query<T>& query, int split) {
  const int first = split * kSplitKeys;
  const KeyRange keys{query.keys.begin > first ? query.keys.begin : first,
                      query.keys.end < first + kSplitKeys ? query.keys.end : first + kSplitKeys};
  Partial partial;
  for (int key = keys.begin / 32 * 32; key < keys.end; key += 32) add_two_blocks(query, key, keys, partial);
  return partial;
}

/// max, sum, then acc: a partial in shared memory.
__device__ void put(float* to, const Partial& split, int head_dim) {
  to[0] = split.max;
  to[1] = split.sum;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i)
    if (static_cast<int>(lane()) + 32 * i < head_dim) to[2 + lane() + 32 * i] = split.acc[i];
}

__device__ void fold(Partial& total, const float* split, int head_dim) {
  const float max = larger(total.max, split[0]);
  const float e1 = exp_of(total.max - max), e2 = exp_of(split[0] - max);
  total.max = max;
  total.sum = fma(split[1], e2, total.sum * e1);
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i)
    if (static_cast<int>(lane()) + 32 * i < head_dim)
      total.acc[i] = fma(split[2 + lane() + 32 * i], e2, total.acc[i] * e1);
}

template <typename T>
__global__ void __launch_bounds__(32 * kMaxWarps) attention_generic_kernel(Params<T> params) {
  const AttentionBatch<T>& batch = params.batch;
  const int row = static_cast<int>(block_index().x) / batch.num_heads,
            head = static_cast<int>(block_index().x) % batch.num_heads;
  const int num_warps = static_cast<int>(block_dims().x) / 32, head_dim = batch.place.head_dim;
  const int sequence = find_last(batch.num_sequences, row, [&](int s) { return batch.query_start[s]; });
  const int start = batch.query_start[sequence], context = batch.context_len[sequence];
  const KeyRange keys = visible_keys(batch, context, batch.query_start[sequence + 1] - start, row - start);
  float* p = shared_memory<float>();     // [num_warps, 32]
  float* partials = p + 32 * num_warps;  // [num_warps, 2 + head_dim]
  const Query<T> query{
      batch,          batch.q.row(row) + head * head_dim, batch.blocks_of(sequence), batch.kv_head_of[head], keys,
      p + 32 * warp()};
  const int first_split = keys.begin / kSplitKeys;
  const int end_split = keys.end > keys.begin ? (keys.end - 1) / kSplitKeys + 1 : first_split;
  Partial total;
  for (int base = first_split; base < end_split; base += num_warps) {
    const int split = base + static_cast<int>(warp());
    if (split < end_split) {
      const Partial partial = attend_split(query, split);
      if (base == first_split && warp() == 0)
        total = partial;
      else
        put(partials + (2 + head_dim) * warp(), partial, head_dim);
    }
    sync_block();
    if (warp() == 0)
      for (int w = base == first_split ? 1 : 0; w < num_warps && base + w < end_split; ++w)
        fold(total, partials + (2 + head_dim) * w, head_dim);
    sync_block();
  }
  if (warp() != 0) return;
#pragma unroll
  for (int i = 0; i < kLaneDims; ++i) {
    const int d = static_cast<int>(lane()) + 32 * i;
    if (d < head_dim)
      batch.store_out(row, int64_t{head} * head_dim + d, total.sum > 0.0f ? total.acc[i] / total.sum : 0.0f);
  }
}

template <typename T>
void launch_as(OpContext& ctx, const AttentionArgs& args) {
  const int splits = max_splits(args), num_warps = splits < 1 ? 1 : splits < kMaxWarps ? splits : kMaxWarps;
  const auto warps = static_cast<unsigned>(num_warps);
  const size_t shared_bytes = warps * (32 + 2 + static_cast<size_t>(args.cache.head_dim)) * sizeof(float);
  launch(ctx, attention_generic_kernel<T>,
         {.grid = {ceil_div(args.q.rows * args.num_heads, 1)}, .block = {32 * warps}, .shared_bytes = shared_bytes},
         Params<T>{batch_of<T>(args)});
}

void attention_launch(OpContext& ctx, const AttentionArgs& args) {
  as_type(args.cache.dtype(), [&](auto type) { launch_as<decltype(type)>(ctx, args); });
}

const KernelTable<AttentionArgs>::Add kAdd({"attention_generic", kKernelDevice, parallel::Isa::kScalar, 0, supports_all,
                                            attention_launch});

}  // namespace
}  // namespace chorale::worker
