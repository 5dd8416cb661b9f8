// tree_fold on a CPU: comm's own tree_sum over rows of the gathered nodes, so that there is one definition of the
// order.
#include "worker/ops/tree_fold.h"

#include <vector>

#include "comm/tree_sum.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {
namespace {

void tree_fold_launch(OpContext&, const TreeFoldArgs& args) {
  std::vector<const float*> nodes(args.schedule->nodes.size());
  for (size_t k = 0; k < nodes.size(); ++k) nodes[k] = args.nodes + static_cast<int64_t>(k) * args.count;
  comm::tree_sum(*args.schedule, nodes, static_cast<size_t>(args.count), args.out);
}

const KernelTable<TreeFoldArgs>::Add kAdd({"tree_fold_tree_sum", DeviceKind::kCpu, parallel::Isa::kScalar, 0,
                                           supports_all, tree_fold_launch});

}  // namespace
}  // namespace chorale::worker
