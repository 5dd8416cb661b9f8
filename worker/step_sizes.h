// How large the steps of a plan can be: what a rank's buffers are made for at its start. Pure arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#include "parallel/cluster_plan.h"

namespace chorale::worker {

/// Rows of the largest graph of a decode step, and blocks of a sequence in it.
int64_t max_graph_rows(const parallel::ClusterPlan& plan);
int64_t max_graph_blocks(const parallel::ClusterPlan& plan);

/// Bytes that one step copies to a device at most: its rows and block tables, launched kernel by kernel or as a graph,
/// and what sampling needs. Steps beyond 64 MiB, or with very long biases, copy more: they wait for room
/// (ops/host_staging.h).
size_t max_staged_bytes(const parallel::ClusterPlan& plan);

}  // namespace chorale::worker
