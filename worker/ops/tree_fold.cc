#include "worker/ops/tree_fold.h"

#include "comm/base/error.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {

void tree_fold(OpContext& ctx, const TreeFoldArgs& args) {
  CHECK(args.schedule != nullptr && !args.schedule->nodes.empty());
  CHECK_GE(args.count, 0);
  if (args.count == 0) return;
  CHECK(args.nodes != nullptr && args.out != nullptr);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
