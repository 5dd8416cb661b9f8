// attention, scalar reference: one query row of one head at a time, exactly the formulas of worker/ops/attention.h
// (N6). Reads the cache only; a masked key is neither multiplied nor read.

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/kernels/cpu/scalar_support.h"
#include "worker/ops/attention.h"
#include "worker/ops/kernel.h"
#include "worker/ops/math.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {
constexpr float kMinusInf = -std::numeric_limits<float>::infinity();
constexpr int kMaxHeadDim = 256;

struct Partial {
  float max = kMinusInf;
  float sum = 0.0f;
  float acc[kMaxHeadDim] = {};
};

struct Query {
  const AttentionArgs& args;
  const float* q;              // [head_dim]
  const int32_t* block_table;  // of its sequence
  int kv_head;
  int first_key, end_key;  // visible keys
};

float element(const TensorView& t, int64_t index) {
  return t.dtype == DType::kBF16 ? to_float(static_cast<const BFloat16*>(t.data)[index])
                                 : static_cast<const float*>(t.data)[index];
}

float score(const Query& query, int key) {
  const KvLayer& cache = query.args.cache;
  const int64_t place = int64_t{query.block_table[key / kBlockTokens]} * cache.num_kv_heads + query.kv_head;
  float dot = 0.0f;
  for (int d = 0; d < cache.head_dim; ++d)
    dot = std::fma(query.q[d], element(cache.k, (place * cache.head_dim + d) * kBlockTokens + key % kBlockTokens), dot);
  const float scaled = dot * query.args.scale;
  const float cap = query.args.softcap;
  return cap > 0.0f ? cap * tanh_f32(scaled / cap) : scaled;
}

/// Adds the visible keys [begin, end) of one block to `split`.
void add_block(const Query& query, int begin, int end, Partial& split) {
  const KvLayer& cache = query.args.cache;
  float scores[kLanes], lane[kLanes], p[kLanes] = {};
  std::fill(scores, scores + kLanes, kMinusInf);
  for (int key = begin; key < end; ++key) scores[key % kBlockTokens] = score(query, key);
  std::copy(scores, scores + kLanes, lane);
  const float block_max = fold_max(lane);
  const float max = split.max > block_max ? split.max : block_max;
  const float rescale = exp_f32(split.max - max);  // exp(-inf) is 0 for the first block
  for (int key = begin; key < end; ++key) p[key % kBlockTokens] = exp_f32(scores[key % kBlockTokens] - max);
  std::copy(p, p + kLanes, lane);
  split.max = max;
  split.sum = std::fma(split.sum, rescale, fold_sum(lane));
  const int64_t place = int64_t{query.block_table[begin / kBlockTokens]} * cache.num_kv_heads + query.kv_head;
  for (int d = 0; d < cache.head_dim; ++d) {
    float acc = split.acc[d] * rescale;
    for (int key = begin; key < end; ++key) {
      const int64_t row = place * kBlockTokens + key % kBlockTokens;
      acc = std::fma(p[key % kBlockTokens], element(cache.v, row * cache.padded_head_dim() + d), acc);
    }
    split.acc[d] = acc;
  }
}

void fold(Partial& total, const Partial& split, int head_dim) {
  const float max = total.max > split.max ? total.max : split.max;
  const float e1 = exp_f32(total.max - max), e2 = exp_f32(split.max - max);
  total.max = max;
  total.sum = std::fma(split.sum, e2, total.sum * e1);
  for (int d = 0; d < head_dim; ++d) total.acc[d] = std::fma(split.acc[d], e2, total.acc[d] * e1);
}

Partial attend(const Query& query) {
  Partial total;
  for (int key = query.first_key; key < query.end_key;) {
    const int split_end = std::min(query.end_key, (key / kSplitKeys + 1) * kSplitKeys);
    const bool first_split = key == query.first_key;
    Partial split;
    while (key < split_end) {
      const int block_end = std::min(split_end, (key / kBlockTokens + 1) * kBlockTokens);
      add_block(query, key, block_end, split);
      key = block_end;
    }
    if (first_split)
      total = split;
    else
      fold(total, split, query.args.cache.head_dim);
  }
  return total;
}

void launch(OpContext& ctx, const AttentionArgs& args) {
  const int64_t dim = args.cache.head_dim;
  ctx.pool.parallel_for(args.num_heads, [&](int64_t head_begin, int64_t head_end, int) {
    for (int s = 0; s < args.num_sequences; ++s)
      for (int row = args.query_start[s]; row < args.query_start[s + 1]; ++row) {
        const int context = args.context_len[s];
        const int position = context - args.query_start[s + 1] + row;
        const bool causal = args.mask == AttentionMask::kCausal;
        const int end = causal ? position + 1 : context;
        const int begin = causal && args.window > 0 ? std::max(0, end - args.window) : 0;
        for (int64_t head = head_begin; head < head_end; ++head) {
          const Query query{args,
                            args.q.row<float>(row) + head * dim,
                            args.block_table + s * args.block_table_stride,
                            args.kv_head_of[head],
                            begin,
                            end};
          const Partial result = attend(query);
          for (int64_t d = 0; d < dim; ++d)
            store(args.out, row, head * dim + d, result.sum > 0.0f ? result.acc[d] / result.sum : 0.0f);
        }
      }
  });
}

const KernelTable<AttentionArgs>::Add kAdd({"attention_scalar", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                            supports_all, launch});

}  // namespace
}  // namespace chorale::worker
