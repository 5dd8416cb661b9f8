// Adds up the partial sums of all ranks, gathered in one place, in the order of the reduction tree (N3): the same bits
// as comm's tree_all_reduce. Called by the device communicator.
#pragma once

#include "comm/reduction_tree.h"
#include "worker/ops/context.h"

namespace chorale::worker {

/// out[i] = the root over nodes[0..num_nodes)[i]. `out` may be the first row of `nodes`.
struct TreeFoldArgs {
  const comm::TreeSchedule* schedule = nullptr;  // host memory
  const float* nodes = nullptr;                  // [schedule->nodes.size(), count] where the kernels read
  int64_t count = 0;
  float* out = nullptr;  // [count]
};
void tree_fold(OpContext& ctx, const TreeFoldArgs& args);

}  // namespace chorale::worker
