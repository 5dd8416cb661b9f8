// The arithmetic of attention, written once over Vec: the formulas of worker/ops/attention.h for R (query row, head)
// items that share a KV head. Scores: a lane is a key, one chain over head_dim. Values: a lane is an output, one chain
// over the keys of a block. So the bits depend neither on R, the number of blocks scored at once, nor the instruction
// set. Included inside an anonymous namespace after math-inl.h; kRegisters is the number of Vec sums that stay in
// registers.

/// Keeps one copy of the big loops: a sanitizer build would take minutes over what they are inlined into.
#define NEVER_INLINE __attribute__((noinline))

constexpr float kMinusInf = -__builtin_inff();

struct F32Cache {
  using Element = float;
  static VEC_INLINE Vec get(const float* p) { return load(p); }
};
struct Bf16Cache {
  using Element = uint16_t;
  static VEC_INLINE Vec get(const uint16_t* p) { return load_bf16(p); }
};

/// R running states: max, sum, unnormalised output.
template <int R>
struct State {
  float max[R];
  float sum[R];
  alignas(64) float acc[R][tiles::kMaxHeadDim];
};

/// The largest power of two <= kRegisters / rows, at most `most`.
constexpr int group_of(int rows, int most) {
  int n = 1;
  while (2 * n * rows <= kRegisters && 2 * n <= most) n *= 2;
  return n;
}

/// scores[b][r] = q_r . k for the 16 keys of each of B blocks; the same places of the blocks at `ahead` are fetched.
template <typename Cache, int R, int B>
NEVER_INLINE void score_blocks(const float (*q)[R], const typename Cache::Element* const* k,
                               const typename Cache::Element* const* ahead, int head_dim, Vec (*scores)[R]) {
  Vec acc[B][R];
  for (int b = 0; b < B; ++b)
    for (int r = 0; r < R; ++r) acc[b][r] = zero();
  for (int d = 0; d < head_dim; ++d) {
    const Index place = static_cast<Index>(d) * kBlockTokens;
    Vec key[B];
    for (int b = 0; b < B; ++b) {
      key[b] = Cache::get(k[b] + place);
      _mm_prefetch(reinterpret_cast<const char*>(ahead[b] + place), _MM_HINT_T1);
    }
    for (int r = 0; r < R; ++r) {
      const Vec value = set1(q[d][r]);
      for (int b = 0; b < B; ++b) acc[b][r] = fma(value, key[b], acc[b][r]);
    }
  }
  for (int b = 0; b < B; ++b)
    for (int r = 0; r < R; ++r) scores[b][r] = acc[b][r];
}

/// acc = acc * a + sum over keys [begin, end) of p_j v_j, for R items and C vectors of outputs starting at column.
template <typename Cache, int R, int C>
NEVER_INLINE void add_values(const typename Cache::Element* v, Index v_stride, const float (*p)[kBlockTokens],
                             const float* a, float (*out)[tiles::kMaxHeadDim], int column, int begin, int end) {
  Vec acc[R][C];
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) acc[r][c] = mul(load(out[r] + column + 16 * c), set1(a[r]));
  for (int j = begin; j < end; ++j) {
    Vec value[C];
    for (int c = 0; c < C; ++c) value[c] = Cache::get(v + j * v_stride + column + 16 * c);
    for (int r = 0; r < R; ++r) {
      const Vec weight = set1(p[r][j]);
      for (int c = 0; c < C; ++c) acc[r][c] = fma(weight, value[c], acc[r][c]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) store(out[r] + column + 16 * c, acc[r][c]);
}

template <typename Cache, int R>
void add_all_values(const typename Cache::Element* v, int padded_dim, const float (*p)[kBlockTokens], const float* a,
                    float (*out)[tiles::kMaxHeadDim], int begin, int end) {
  constexpr int C = group_of(R, 8);
  int column = 0;
  for (; column + 16 * C <= padded_dim; column += 16 * C)
    add_values<Cache, R, C>(v, padded_dim, p, a, out, column, begin, end);
  for (; column < padded_dim; column += 16) add_values<Cache, R, 1>(v, padded_dim, p, a, out, column, begin, end);
}

/// One block of 16 keys from `first` on: softmax weights of every item, then the values.
template <typename Cache, int R>
NEVER_INLINE void add_block(const tiles::Tile& tile, int first, const typename Cache::Element* v, const Vec* scores,
                            State<R>& state) {
  const AttentionArgs& args = *tile.args;
  alignas(64) float p[R][kBlockTokens];
  alignas(64) float before[16] = {}, after[16] = {}, a[16];
  int begin[R], end[R];
  bool same = true;
  for (int r = 0; r < R; ++r) {
    const int lo = tile.first_key[r] - first, hi = tile.end_key[r] - first;
    begin[r] = lo > 0 ? lo : 0;
    end[r] = hi < kBlockTokens ? hi : kBlockTokens;
    same = same && begin[r] == begin[0] && end[r] == end[0];
    if (begin[r] >= end[r]) {  // nothing visible: the item's state stays
      begin[r] = end[r] = 0;
      continue;
    }
    Vec s = mul(scores[r], set1(args.scale));
    if (args.softcap > 0.0f) s = mul(set1(args.softcap), tanh_vec(div(s, set1(args.softcap))));
    if (begin[r] > 0 || end[r] < kBlockTokens) s = keep_lanes(s, begin[r], end[r], set1(kMinusInf));
    const float block_max = fold_max(s);
    before[r] = state.max[r];
    after[r] = state.max[r] > block_max ? state.max[r] : block_max;
    store(p[r], s);
  }
  store(a, exp_vec(sub(load(before), load(after))));
  for (int r = 0; r < R; ++r) {
    if (begin[r] == end[r]) continue;
    const Vec weights = exp_vec(sub(load(p[r]), set1(after[r])));  // exp(-inf) is +0
    store(p[r], weights);
    state.max[r] = after[r];
    state.sum[r] = __builtin_fmaf(state.sum[r], a[r], fold_sum(weights));
  }
  const int dim = static_cast<int>(args.cache.padded_head_dim());
  if (same) {
    if (begin[0] < end[0]) add_all_values<Cache, R>(v, dim, p, a, state.acc, begin[0], end[0]);
    return;
  }
  for (int r = 0; r < R; ++r)
    if (begin[r] < end[r]) add_all_values<Cache, 1>(v, dim, p + r, a + r, state.acc + r, begin[r], end[r]);
}

template <typename Cache>
VEC_INLINE const typename Cache::Element* k_block(const tiles::Tile& tile, int block) {
  const KvLayer& cache = tile.args->cache;
  const Index place = static_cast<Index>(tile.block_table[block]) * cache.num_kv_heads + tile.kv_head;
  return static_cast<const typename Cache::Element*>(cache.k.data) + place * cache.head_dim * kBlockTokens;
}
template <typename Cache>
VEC_INLINE const typename Cache::Element* v_block(const tiles::Tile& tile, int block) {
  const KvLayer& cache = tile.args->cache;
  const Index place = static_cast<Index>(tile.block_table[block]) * cache.num_kv_heads + tile.kv_head;
  return static_cast<const typename Cache::Element*>(cache.v.data) + place * kBlockTokens * cache.padded_head_dim();
}

/// Blocks of one head lie far apart: the hardware does not see where the next one is. Fetched little by little, between
/// computations.
template <typename Cache>
VEC_INLINE void fetch_values(const tiles::Tile& tile, int block) {
  const Index bytes =
      tile.args->cache.padded_head_dim() * kBlockTokens * static_cast<Index>(sizeof(typename Cache::Element));
  const auto* v = reinterpret_cast<const char*>(v_block<Cache>(tile, block));
  for (Index i = 0; i < bytes; i += 64) _mm_prefetch(v + i, _MM_HINT_T1);
}

/// Starts `state` afresh and takes the split's blocks left to right.
template <typename Cache, int R>
NEVER_INLINE void run_split(const tiles::Tile& tile, const float (*q)[R], int split, State<R>& state) {
  const Index dim = tile.args->cache.head_dim, padded = tile.args->cache.padded_head_dim();
  for (int r = 0; r < R; ++r) {
    state.max[r] = kMinusInf;
    state.sum[r] = 0.0f;
    for (Index d = 0; d < padded; d += 16) store(state.acc[r] + d, zero());
  }
  const int lowest = split * kSplitKeys > tile.min_key ? split * kSplitKeys : tile.min_key;
  const int highest = (split + 1) * kSplitKeys < tile.max_key ? (split + 1) * kSplitKeys : tile.max_key;
  const int end_block = (highest + kBlockTokens - 1) / kBlockTokens;
  constexpr int B = group_of(R, 8);
  for (int block = lowest / kBlockTokens; block < end_block; block += B) {
    const int count = end_block - block < B ? end_block - block : B;
    const typename Cache::Element *k[B], *v[B];
    for (int b = 0; b < count; ++b) {
      k[b] = k_block<Cache>(tile, block + b);
      v[b] = v_block<Cache>(tile, block + b);
    }
    const typename Cache::Element* ahead[B];
    for (int b = 0; b < B; ++b)
      ahead[b] = block + B + b < tile.prefetch_blocks ? k_block<Cache>(tile, block + B + b) : k[0];
    Vec scores[B][R];
    if (count == B)
      score_blocks<Cache, R, B>(q, k, ahead, static_cast<int>(dim), scores);
    else
      for (int b = 0; b < count; ++b) score_blocks<Cache, R, 1>(q, k + b, ahead + b, static_cast<int>(dim), scores + b);
    for (int b = 0; b < count; ++b) {
      if (block + B + b < tile.prefetch_blocks) fetch_values<Cache>(tile, block + B + b);
      add_block<Cache, R>(tile, (block + b) * kBlockTokens, v[b], scores[b], state);
    }
  }
}

/// Folds one split's (max, sum, acc) of an item into its total; sum 0 means that it saw no key.
VEC_INLINE void fold_item(float& max, float& sum, float* acc, float split_max, float split_sum, const float* split_acc,
                          Index padded) {
  if (split_sum == 0.0f) return;
  if (sum == 0.0f) {
    max = split_max;
    sum = split_sum;
    for (Index d = 0; d < padded; d += 16) store(acc + d, load(split_acc + d));
    return;
  }
  const float larger = max > split_max ? max : split_max;
  alignas(64) float e[16] = {max - larger, split_max - larger};
  store(e, exp_vec(load(e)));
  max = larger;
  sum = __builtin_fmaf(split_sum, e[1], sum * e[0]);
  for (Index d = 0; d < padded; d += 16)
    store(acc + d, fma(load(split_acc + d), set1(e[1]), mul(load(acc + d), set1(e[0]))));
}

VEC_INLINE void write_item(const tiles::Tile& tile, int item, float sum, const float* acc) {
  const Index dim = tile.args->cache.head_dim;
  const bool bf16 = tile.args->out.dtype == DType::kBF16;
  for (Index d = 0; d < dim; d += 16) {
    const int lanes = dim - d < 16 ? static_cast<int>(dim - d) : 16;
    const Vec y = sum > 0.0f ? div(load(acc + d), set1(sum)) : zero();
    if (bf16)
      store_bf16_n(reinterpret_cast<uint16_t*>(tile.out[item]) + d, y, lanes);
    else
      store_n(reinterpret_cast<float*>(tile.out[item]) + d, y, lanes);
  }
}

template <int R>
VEC_INLINE void pack_queries(const tiles::Tile& tile, float (*q)[R]) {
  for (int r = 0; r < R; ++r)
    for (Index d = 0; d < tile.args->cache.head_dim; ++d) q[d][r] = tile.q[r][d];
}

template <typename Cache, int R>
void attend_rows(const tiles::Tile& tile) {
  alignas(64) float q[tiles::kMaxHeadDim][R];
  pack_queries<R>(tile, q);
  State<R> total, split;
  for (int r = 0; r < R; ++r) total.sum[r] = 0.0f;
  const Index padded = tile.args->cache.padded_head_dim();
  for (int s = tile.first_split(); s < tile.end_split(); ++s) {
    run_split<Cache, R>(tile, q, s, split);
    for (int r = 0; r < R; ++r)
      fold_item(total.max[r], total.sum[r], total.acc[r], split.max[r], split.sum[r], split.acc[r], padded);
  }
  for (int r = 0; r < R; ++r) write_item(tile, r, total.sum[r], total.acc[r]);
}

template <typename Cache, int R>
void attend_split_rows(const tiles::Tile& tile, int s, float* states, Index stride) {
  alignas(64) float q[tiles::kMaxHeadDim][R];
  pack_queries<R>(tile, q);
  State<R> split;
  run_split<Cache, R>(tile, q, s, split);
  for (int r = 0; r < R; ++r) {
    float* state = states + r * stride;
    state[0] = split.max[r];
    state[1] = split.sum[r];
    for (Index d = 0; d < tile.args->cache.padded_head_dim(); d += 16)
      store(state + tiles::kStateHeader + d, load(split.acc[r] + d));
  }
}

void finish(const tiles::Tile& tile, const float* states, int num_splits, Index stride) {
  const Index padded = tile.args->cache.padded_head_dim();
  for (int r = 0; r < tile.num_items; ++r) {
    alignas(64) float acc[tiles::kMaxHeadDim];
    float max = kMinusInf, sum = 0.0f;
    for (int s = 0; s < num_splits; ++s) {
      const float* state = states + (static_cast<Index>(s) * tile.num_items + r) * stride;
      fold_item(max, sum, acc, state[0], state[1], state + tiles::kStateHeader, padded);
    }
    write_item(tile, r, sum, acc);
  }
}

/// Calls the function for the tile's number of items: R, R - 1, ...
template <typename Cache, int R>
void dispatch(const tiles::Tile& tile) {
  if (tile.num_items == R) return attend_rows<Cache, R>(tile);
  if constexpr (R > 1) dispatch<Cache, R - 1>(tile);
}
template <typename Cache, int R>
void dispatch_split(const tiles::Tile& tile, int split, float* states, Index stride) {
  if (tile.num_items == R) return attend_split_rows<Cache, R>(tile, split, states, stride);
  if constexpr (R > 1) dispatch_split<Cache, R - 1>(tile, split, states, stride);
}

void attend(const tiles::Tile& tile) {
  tile.args->cache.k.dtype == DType::kF32 ? dispatch<F32Cache, kTileItems>(tile)
                                          : dispatch<Bf16Cache, kTileItems>(tile);
}
void attend_split(const tiles::Tile& tile, int split, float* states, Index stride) {
  tile.args->cache.k.dtype == DType::kF32 ? dispatch_split<F32Cache, kTileItems>(tile, split, states, stride)
                                          : dispatch_split<Bf16Cache, kTileItems>(tile, split, states, stride);
}

void attention_launch(OpContext& ctx, const AttentionArgs& args) {
  tiles::run_attention(ctx, args, {kTileItems, attend, attend_split, finish});
}
