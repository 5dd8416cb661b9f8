// How many KV blocks a world may have, and whether weights, scratch and KV cache fit where its ranks compute: the
// memory of hosts for CPUs, of devices for GPUs. Pure arithmetic on what the workers say is free.
#pragma once

#include <cstdint>
#include <vector>

#include "coordinator/make_cluster_plan.h"
#include "parallel/cluster_plan.h"

namespace chorale::coordinator {

/// How many KV blocks a world could have: what there is room for on every rank, and what its sequences can use.
struct KvBudget {
  int64_t affordable = 0;  // the fewest that any rank has room for
  int64_t needed = 0;      // by max_num_seqs sequences of max_model_len
};
/// Of a plan that has its layout, class, limits and device_comm; num_kv_blocks is not read.
KvBudget kv_budget(const ClusterRequest& request, const parallel::ClusterPlan& plan,
                   const std::vector<parallel::WorkerHello>& hellos);

/// Throws Error{kResourceExhausted}, which says by how much and what to change, when the plan's KV blocks are too few
/// for one sequence of max_model_len, or what the ranks of a host or of a GPU need is more than is free there.
void check_memory(const ClusterRequest& request, const parallel::ClusterPlan& plan,
                  const std::vector<parallel::WorkerHello>& hellos);

}  // namespace chorale::coordinator
