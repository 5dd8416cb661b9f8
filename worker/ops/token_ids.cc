#include "worker/ops/token_ids.h"

#include "worker/ops/kernel.h"

namespace chorale::worker {

void resolve_ids(OpContext& ctx, const ResolveIdsArgs& args) {
  if (args.count == 0) return;
  CHECK(args.sources != nullptr && args.table != nullptr && args.ids != nullptr);
  select_kernel(ctx, args).launch(ctx, args);
}

void keep_ids(OpContext& ctx, const KeepIdsArgs& args) {
  if (args.count == 0) return;
  CHECK(args.ids != nullptr && args.slots != nullptr && args.table != nullptr);
  select_kernel(ctx, args).launch(ctx, args);
}

}  // namespace chorale::worker
