// The first calls of a rank's transports, at its start: NCCL connects ranks when they first talk, and for each way of
// moving bytes, which it chooses by size, anew. A step would pay for that with its time, and the capture of a graph
// might fail. So each transport does once what its steps will ask of it, at the sizes of the smallest step, of about
// 1 MiB and of the largest step. Called by stage_transports.cc and where a transport was renewed.
#pragma once

#include "comm/device_transport.h"
#include "parallel/cluster_plan.h"
#include "worker/ops/workspace.h"

namespace chorale::worker {

/// Sums of both row-parallel linears, and, on the last stage, logits and sampled ids of slabs. Collective over the
/// transport's ranks, as the others. Takes as much `memory`, of the stream's device, as a call of the largest step.
/// Throws what the transport throws, and Error{kDeadlineExceeded} that names its last call.
void warm_up_group(const parallel::ClusterPlan& plan, int rank, comm::DeviceTransport& transport, Stream& stream,
                   Workspace& memory, Deadline deadline);
/// Hidden rows, from rank 0 of the transport to rank 1.
void warm_up_link(const parallel::ClusterPlan& plan, comm::DeviceTransport& transport, Stream& stream,
                  Workspace& memory, Deadline deadline);
/// Ids of steps, from the last rank of the transport to all.
void warm_up_ids(const parallel::ClusterPlan& plan, comm::DeviceTransport& transport, Stream& stream, Workspace& memory,
                 Deadline deadline);

}  // namespace chorale::worker
