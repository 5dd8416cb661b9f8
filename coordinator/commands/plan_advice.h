// The recommendation of `chorale plan`, shown: what it is asked, its table for people, its JSON for scripts. Only
// plan.cc calls it; it decides nothing.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "coordinator/make_cluster_plan.h"
#include "parallel/recommend/layout_advisor.h"

namespace chorale::coordinator {

/// `mean_context` 0: half of the greatest length, at most 1024 tokens.
parallel::Workload workload_of(const ClusterRequest& request, const parallel::ModelConfig& config,
                               int64_t mean_context);

/// What the ranks of `machine` would say, were they there.
std::vector<parallel::WorkerHello> hellos_of(const parallel::MachineFigures& machine, int num_ranks);

/// Refuses a layout, named by the user, of more ranks than the machines have. Throws Error{kInvalidArgument}.
void check_there_are_ranks(const parallel::MachineFigures& machine, const parallel::LayoutRequest& layout);

/// --num-kv-blocks that the layout needs to be given, or 0: a CPU world whose weights leave less than the usual share
/// of memory to the cache.
int64_t blocks_to_name(const parallel::LayoutEstimate& layout, const parallel::MachineFigures& machine);

/// {"recommendation": {...}, "layouts": [...], "figures": {...}}
nlohmann::json json_of(const parallel::Advice& advice, const parallel::MachineFigures& machine,
                       const parallel::Workload& workload);
std::string text_of(const parallel::Advice& advice, const parallel::MachineFigures& machine,
                    const parallel::Workload& workload);

}  // namespace chorale::coordinator
