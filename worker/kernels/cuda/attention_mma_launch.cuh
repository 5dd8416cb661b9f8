// How attention on tensor cores is launched: which sequences are cut into splits, the grid, and which arguments it is
// for. attention_mma_bf16.cu and attention_mma_f16.cu compile it side by side.
#pragma once

#include <algorithm>

#include "worker/kernels/cuda/attention_mma.cuh"

namespace chorale::worker::inline SIMT::attention_mma {

/// Sequences of up to how many tokens are cut into splits: as many as the batch has on average (one in a step of
/// decodes), since longer ones have tiles enough, and as scratch holds. Only speed depends on it.
inline int cut_tokens_of(const AttentionArgs& args, int num_splits) {
  constexpr int64_t kScratchBytes = int64_t{256} << 20, kMaxTokens = 64;
  if (num_splits < 2) return 0;
  const int64_t bytes = int64_t{args.num_sequences} * args.num_heads * num_splits * (args.cache.head_dim + 2) * 4;
  const int64_t average = (args.q.rows + args.num_sequences - 1) / args.num_sequences;
  return static_cast<int>(std::min({kScratchBytes / bytes, average, kMaxTokens}));
}

template <typename T, int kDim>
void launch_shape(OpContext& ctx, const AttentionArgs& args) {
  using G = Geometry<kDim>;
  const Workspace::Scope scope(ctx.scratch);
  Params<T> p{};
  p.batch = batch_of<T>(args);
  p.rule = args.softcap > 0.0f ? ScoreRule{args.scale / args.softcap, args.softcap * kLog2E}
                               : ScoreRule{args.scale * kLog2E, 0.0f};
  p.num_splits = max_splits(args);
  p.cut_tokens = cut_tokens_of(args, p.num_splits);
  const int64_t cut_rows = int64_t{args.num_sequences} * p.cut_tokens * args.num_heads;
  p.stats = ctx.scratch.take<float>(cut_rows * p.num_splits * 2);
  p.acc = ctx.scratch.take<float>(cut_rows * p.num_splits * kDim);
  // Where every sequence is cut (a step of decodes) there are no long tiles.
  const bool has_long = p.cut_tokens < args.q.rows;
  p.loop_blocks = !has_long ? 0
                            : static_cast<int>(args.q.rows * args.num_heads / (kTileRows * int64_t{G::kWarps}) +
                                               int64_t{args.cache.num_kv_heads} * args.num_sequences);
  const int cut_blocks = p.cut_tokens == 0
                             ? 0
                             : args.num_sequences * tiles_of(p.cut_tokens, args.num_heads, args.cache.num_kv_heads) *
                                   static_cast<int>(ceil_div(p.num_splits, G::kWarps));
  launch(ctx, attention_mma_kernel<T, kDim>,
         {.grid = {static_cast<unsigned>(p.loop_blocks + cut_blocks)},
          .block = {32 * G::kWarps},
          .shared_bytes = G::kWarps * static_cast<size_t>(G::kSharedBytes)},
         p);
  if (cut_rows > 0)
    launch(ctx, attention_fold_kernel<T>, {.grid = {ceil_div(cut_rows * ((kDim + 31) / 32), 1)}, .block = {32}}, p);
}

template <typename T>
void launch_as(OpContext& ctx, const AttentionArgs& args) {
  switch (args.cache.head_dim) {
    case 64: return launch_shape<T, 64>(ctx, args);
    case 80: return launch_shape<T, 80>(ctx, args);
    case 96: return launch_shape<T, 96>(ctx, args);
    case 128: return launch_shape<T, 128>(ctx, args);
    case 256: return launch_shape<T, 256>(ctx, args);
    default: break;
  }
  CHECK(!"a head_dim that supports() lets through");
}

inline bool has_head_dim(int head_dim) {
  return head_dim == 64 || head_dim == 80 || head_dim == 96 || head_dim == 128 || head_dim == 256;
}
template <DType kCache>
bool supports(const OpContext&, const AttentionArgs& args) {
  return args.cache.dtype() == kCache && args.cache.order == KvOrder::kFragments && has_head_dim(args.cache.head_dim);
}

}  // namespace chorale::worker::inline SIMT::attention_mma
