#include "worker/stage_transports.h"

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {
// Ranks of other stages wait for those of a group that does not come together: that group shall say so first.
constexpr std::chrono::seconds kLinksLater{5};
}  // namespace

StageTransports make_stage_transports(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world,
                                      const DeviceStream& where, Deadline deadline) {
  if (plan.device_comm != parallel::DeviceComm::kNccl) return {};
  const auto* entry = comm::DeviceTransportRegistry::find(to_string(plan.device_comm));
  CHECK(entry != nullptr);
  if (!where || entry->version(where.kind()).empty())
    fail(ErrorCode::kUnsupported, "rank {} has no NCCL, which the world talks over; see --comm", rank);
  const parallel::Layout& layout = plan.layout;
  const int stage = layout.stage_of(rank), tp_index = layout.tp_index_of(rank);
  const Deadline link_deadline(deadline.when() + kLinksLater);
  const auto make = [&](std::vector<int> members, std::string label, Deadline until) {
    return entry->make({.host = world,
                        .members = std::move(members),
                        .label = std::move(label),
                        .device = *where.device,
                        .stream = *where.stream,
                        .deadline = until});
  };
  const auto make_link = [&](int from) {
    return make({layout.rank_of(from, tp_index), layout.rank_of(from + 1, tp_index)},
                fmt::format("stage {} to {}", from, from + 1), link_deadline);
  };
  // Each stage meets the one before it first: stage 0 begins, the others follow.
  StageTransports transports;
  if (layout.tp > 1) {
    std::vector<int> members;
    for (int tp = 0; tp < layout.tp; ++tp) members.push_back(layout.rank_of(stage, tp));
    transports.group = make(std::move(members), fmt::format("stage {}", stage), deadline);
  }
  if (stage > 0) transports.previous = make_link(stage - 1);
  if (stage + 1 < layout.pp) transports.next = make_link(stage);
  const int leader = layout.rank_of(layout.pp - 1, 0);
  if (layout.pp > 1 && (stage == 0 || rank == leader)) {
    std::vector<int> members;
    for (int tp = 0; tp < layout.tp; ++tp) members.push_back(layout.rank_of(0, tp));
    members.push_back(leader);
    transports.ids = make(std::move(members), "sampled ids", link_deadline);
  }
  return transports;
}

}  // namespace chorale::worker
