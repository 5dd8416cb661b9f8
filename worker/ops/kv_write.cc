#include "worker/ops/kv_write.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void kv_write(OpContext& ctx, const KvWriteArgs& args) {
  const KvLayer& cache = args.cache;
  check_matrix(ctx, args.k, args.k.rows, int64_t{cache.num_kv_heads} * cache.head_dim);
  check_matrix(ctx, args.v, args.k.rows, int64_t{cache.num_kv_heads} * cache.head_dim);
  check_f32(args.k);
  check_f32(args.v);
  if (args.k.rows == 0) return;
  CHECK(args.slots != nullptr);
  if (ctx.device == DeviceKind::kCpu)
    for (int64_t i = 0; i < args.k.rows; ++i)
      CHECK(args.slots[i] >= 0 && args.slots[i] / kBlockTokens < cache.num_blocks());
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
