// How attention on tensor cores is launched: which sequences are cut into splits, the grid, and which arguments it is
// for. attention_mma_bf16.cu and attention_mma_f16.cu compile it side by side.
#pragma once

#include <algorithm>

#include "worker/kernels/cuda/attention_mma.cuh"

namespace chorale::worker::inline SIMT::attention_mma {

/// Blocks that stride over the list of work: some for each place that the largest GPUs have for them (148
/// multiprocessors, 2 or 3 blocks each), so that late ones fill gaps, but few enough to launch for nothing.
constexpr int64_t kMostCutBlocks = 1024;

/// Which sequences are cut. Only speed depends on it.
struct Cut {
  int tokens;  // those of at most so many: as many as the batch has on average, since longer ones have tiles enough
  int splits;  // whose splits are among the batch's first so many: as scratch holds
};
inline Cut cut_of(const AttentionArgs& args) {
  constexpr int64_t kMaxTokens = 64;
  if (max_splits(args) < 2) return {0, 0};
  const int64_t token_bytes = int64_t{args.num_heads} * (args.cache.head_dim + 2) * 4;
  const int64_t average = (args.q.rows + args.num_sequences - 1) / args.num_sequences;
  const int64_t room = args.partial_bytes / (token_bytes * std::max(1, args.max_splits));
  const int64_t tokens = std::min({average, int64_t{args.max_query_len}, kMaxTokens, std::max<int64_t>(1, room)});
  return {static_cast<int>(tokens),
          static_cast<int>(std::min<int64_t>(args.max_splits, args.partial_bytes / (token_bytes * tokens)))};
}

template <typename T, int kDim>
void launch_shape(OpContext& ctx, const AttentionArgs& args) {
  using G = Geometry<kDim>;
  const Workspace::Scope scope(ctx.scratch);
  Params<T> p{};
  p.batch = batch_of<T>(args);
  p.rule = args.softcap > 0.0f ? ScoreRule{args.scale / args.softcap, args.softcap * kLog2E}
                               : ScoreRule{args.scale * kLog2E, 0.0f};
  const Cut cut = cut_of(args);
  p.cut_tokens = cut.tokens;
  p.cut_splits = cut.splits;
  const int64_t partials = int64_t{cut.splits} * cut.tokens * args.num_heads;
  p.stats = ctx.scratch.take<float>(partials * 2);
  p.acc = ctx.scratch.take<float>(partials * kDim);
  // Where every sequence is cut (a step of decodes) there are no long tiles.
  const bool has_long = cut.tokens < args.max_query_len || cut.splits < args.max_splits;
  p.loop_blocks = !has_long ? 0
                            : static_cast<int>(args.q.rows * args.num_heads / (kTileRows * int64_t{G::kWarps}) +
                                               int64_t{args.cache.num_kv_heads} * args.num_sequences);
  const int64_t items = int64_t{cut.splits} * tiles_of(cut.tokens, args.num_heads, args.cache.num_kv_heads);
  const int64_t cut_blocks = std::min<int64_t>(kMostCutBlocks, ceil_div(items, G::kWarps));
  if (p.loop_blocks + cut_blocks > 0)
    launch(ctx, attention_mma_kernel<T, kDim>,
           {.grid = {static_cast<unsigned>(p.loop_blocks + cut_blocks)},
            .block = {32 * G::kWarps},
            .shared_bytes = G::kWarps * static_cast<size_t>(G::kSharedBytes)},
           p);
  if (const int64_t cut_rows = int64_t{args.num_sequences} * cut.tokens * args.num_heads; cut_rows > 0)
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
