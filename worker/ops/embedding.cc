#include "worker/ops/embedding.h"

#include "worker/ops/door.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void embedding(OpContext& ctx, const EmbeddingArgs& args) {
  check_matrix(ctx, args.table, args.table.rows, args.out.cols);
  check_matrix(ctx, args.out, args.out.rows, args.table.cols);
  check_f32(args.out);
  CHECK(args.table.dtype == DType::kF32 || args.table.dtype == DType::kBF16 || args.table.dtype == DType::kF16);
  if (args.out.rows == 0) return;
  CHECK(args.ids != nullptr);
  if (ctx.device == DeviceKind::kCpu)
    for (int64_t i = 0; i < args.out.rows; ++i) CHECK(args.ids[i] >= 0 && args.ids[i] < args.table.rows);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
