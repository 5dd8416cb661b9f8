#include "worker/ops/attention.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {
namespace {

/// The host reads the arrays that describe the batch; on other devices the runner has checked them.
void check_batch(const AttentionArgs& args) {
  CHECK_EQ(args.query_start[0], 0);
  CHECK_EQ(args.query_start[args.num_sequences], args.q.rows);
  for (int h = 0; h < args.num_heads; ++h)
    CHECK(args.kv_head_of[h] >= (h > 0 ? args.kv_head_of[h - 1] : 0) && args.kv_head_of[h] < args.cache.num_kv_heads);
  for (int s = 0; s < args.num_sequences; ++s) {
    const int query_len = args.query_start[s + 1] - args.query_start[s];
    const int64_t num_blocks = (int64_t{args.context_len[s]} + kBlockTokens - 1) / kBlockTokens;
    CHECK_GE(query_len, 0);
    CHECK(args.mask == AttentionMask::kFull || args.context_len[s] == 0 || args.context_len[s] >= query_len);
    CHECK(args.context_len[s] >= 0 && num_blocks <= args.block_table_stride);
    for (int64_t b = 0; b < num_blocks; ++b) {
      const int32_t block = args.block_table[s * args.block_table_stride + b];
      CHECK(block >= 0 && block < args.cache.num_blocks());
    }
  }
}

}  // namespace

std::vector<int32_t> split_starts(std::span<const int32_t> context_len) {
  std::vector<int32_t> starts{0};
  starts.reserve(context_len.size() + 1);
  for (int32_t context : context_len) starts.push_back(starts.back() + (context + kSplitKeys - 1) / kSplitKeys);
  return starts;
}

void attention(OpContext& ctx, const AttentionArgs& args) {
  const int64_t width = int64_t{args.num_heads} * args.cache.head_dim;
  check_matrix(ctx, args.q, args.q.rows, width);
  check_matrix(ctx, args.out, args.q.rows, width);
  check_f32(args.q);
  check_compute_type(args.out);
  CHECK(args.window >= 0 && args.softcap >= 0.0f);
  if (args.q.rows == 0 || args.num_heads == 0) return;
  CHECK(args.kv_head_of != nullptr && args.query_start != nullptr && args.context_len != nullptr &&
        args.block_table != nullptr);
  if (ctx.device == DeviceKind::kCpu)
    check_batch(args);
  else
    CHECK(args.split_start != nullptr && args.max_splits >= 0 && args.max_query_len >= 1);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
