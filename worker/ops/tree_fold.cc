#include "worker/ops/tree_fold.h"

#include "worker/ops/kernel.h"

namespace chorale::worker {

void tree_fold(OpContext& ctx, const TreeFoldArgs& args) {
  CHECK(args.schedule != nullptr);
  CHECK(!args.schedule->nodes.empty());
  CHECK_EQ(args.schedule->additions.size() + 1, args.schedule->nodes.size());
  CHECK_GE(args.count, 0);
  if (args.count == 0) return;
  CHECK(args.nodes != nullptr && args.out != nullptr);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
