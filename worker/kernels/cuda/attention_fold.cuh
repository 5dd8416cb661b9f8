// Folds what the warps of attention_mma.cuh left of sequences that were cut into splits (N6).
#pragma once

#include "worker/kernels/cuda/attention_tiles.cuh"

namespace chorale::worker::inline SIMT::attention_mma {

/// Folds the splits of cut sequences: a warp takes 32 outputs of one row and head. Lane i finds how split i moves the
/// maximum, 32 splits at a time; then every lane folds its output over them, left to right.
template <typename T>
__global__ void __launch_bounds__(32) attention_fold_kernel(Params<T> p) {
  const int head_dim = p.batch.place.head_dim, slices = (head_dim + 31) / 32;
  const int row = static_cast<int>(block_index().x) / slices,
            dim = static_cast<int>(block_index().x) % slices * 32 + static_cast<int>(lane());
  const int head = row % p.batch.num_heads, token = row / p.batch.num_heads % p.cut_tokens;
  const int sequence = row / p.batch.num_heads / p.cut_tokens, start = p.batch.query_start[sequence];
  const int query_len = p.batch.query_start[sequence + 1] - start;
  if (token >= query_len || !p.is_cut(sequence, query_len)) return;
  const KeyRange keys = visible_keys(p.batch, p.batch.context_len[sequence], query_len, token);
  const int end_split = keys.end > keys.begin ? (keys.end - 1) / kSplitKeys + 1 : 0;
  const int64_t partial = p.partial(sequence, token, head);
  float max = -infinity(), sum = 0.0f, acc = 0.0f;
  for (int base = keys.begin / kSplitKeys; base < end_split; base += 32) {
    const int mine = base + static_cast<int>(lane()), count = end_split - base < 32 ? end_split - base : 32;
    const float my_max = mine < end_split ? p.stats[2 * (partial + mine)] : -infinity();
    const float my_sum = mine < end_split ? p.stats[2 * (partial + mine) + 1] : 0.0f;
    float upto = my_max;  // the maximum of these splits up to the lane's
#pragma unroll
    for (unsigned width = 1; width < 32; width *= 2) upto = larger(upto, shuffle_up(upto, width));
    const float before = shuffle_up(upto, 1);
    const Fold fold(lane() > 0 ? larger(max, before) : max, my_max);
    max = larger(max, shuffle(upto, 31));
    const uint32_t keeps = ballot(fold.keeps), takes = ballot(fold.takes);
#pragma unroll 8
    for (int i = 0; i < count; ++i) {
      Fold step = fold;
      step.e1 = shuffle(fold.e1, static_cast<unsigned>(i));
      step.e2 = shuffle(fold.e2, static_cast<unsigned>(i));
      step.keeps = (keeps >> i & 1u) != 0;
      step.takes = (takes >> i & 1u) != 0;
      sum = step(sum, shuffle(my_sum, static_cast<unsigned>(i)));
      acc = step(acc, dim < head_dim ? p.acc[(partial + base + i) * head_dim + dim] : 0.0f);
    }
  }
  if (dim < head_dim) p.batch.store_out(start + token, int64_t{head} * head_dim + dim, quotient(acc, sum));
}

}  // namespace chorale::worker::inline SIMT::attention_mma
