#include "worker/stage_transports.h"

#include <fmt/format.h>

#include "comm/base/error.h"
#include "worker/transport_warm_up.h"

namespace chorale::worker {
namespace {
// Ranks of other stages wait for those of a group that does not come together: that group shall say so first.
constexpr std::chrono::seconds kLinksLater{5};
// A kernel that waits for rows of the stage before holds its thread blocks, each a multiprocessor's, while this stage
// computes. Two move tens of GB/s, a long prefill's rows in milliseconds; ids are a few bytes.
constexpr int kLinkCtas = 2, kIdsCtas = 1;
constexpr size_t kFirstMemory = size_t{1} << 20;

/// 0: as many as NCCL takes.
int max_ctas(TransportUse use) {
  switch (use) {
    case TransportUse::kGroup: break;
    case TransportUse::kLink: return kLinkCtas;
    case TransportUse::kIds: return kIdsCtas;
  }
  return 0;
}
}  // namespace

std::unique_ptr<comm::DeviceTransport> make_stage_transport(comm::Communicator& world, std::vector<int> members,
                                                            std::string label, TransportUse use,
                                                            const DeviceStream& where, Deadline deadline) {
  const auto* entry = comm::DeviceTransportRegistry::find(to_string(parallel::DeviceComm::kNccl));
  CHECK(entry != nullptr);
  if (!where || entry->version(where.kind()).empty())
    fail(ErrorCode::kUnsupported, "rank {} has no NCCL, which the world talks over; see --comm", world.rank());
  return entry->make({.host = world,
                      .members = std::move(members),
                      .label = std::move(label),
                      .max_ctas = max_ctas(use),
                      .deadline = deadline});
}

StageTransports make_stage_transports(const parallel::ClusterPlan& plan, int rank, comm::Communicator& world,
                                      const DeviceStream& where, Deadline deadline) {
  if (plan.device_comm != parallel::DeviceComm::kNccl) return {};
  const parallel::Layout& layout = plan.layout;
  const int stage = layout.stage_of(rank), tp_index = layout.tp_index_of(rank);
  const Deadline link_deadline(deadline.when() + kLinksLater);
  Workspace memory(where.device, kFirstMemory);  // given back before the weights come
  const auto make_link = [&](int from) {
    auto link =
        make_stage_transport(world, {layout.rank_of(from, tp_index), layout.rank_of(from + 1, tp_index)},
                             fmt::format("stage {} to {}", from, from + 1), TransportUse::kLink, where, link_deadline);
    warm_up_link(plan, *link, *where.stream, memory, link_deadline);
    return link;
  };
  // Each stage meets the one before it first: stage 0 begins, the others follow.
  StageTransports transports;
  if (layout.tp > 1) {
    std::vector<int> members;
    for (int tp = 0; tp < layout.tp; ++tp) members.push_back(layout.rank_of(stage, tp));
    transports.group = make_stage_transport(world, std::move(members), fmt::format("stage {}", stage),
                                            TransportUse::kGroup, where, deadline);
    warm_up_group(plan, rank, *transports.group, *where.stream, memory, deadline);
  }
  if (stage > 0) transports.previous = make_link(stage - 1);
  if (stage + 1 < layout.pp) transports.next = make_link(stage);
  const int leader = layout.rank_of(layout.pp - 1, 0);
  if (layout.pp > 1 && (stage == 0 || rank == leader)) {
    std::vector<int> members;
    for (int tp = 0; tp < layout.tp; ++tp) members.push_back(layout.rank_of(0, tp));
    members.push_back(leader);
    transports.ids =
        make_stage_transport(world, std::move(members), "sampled ids", TransportUse::kIds, where, link_deadline);
    warm_up_ids(plan, *transports.ids, *where.stream, memory, link_deadline);
  }
  return transports;
}

}  // namespace chorale::worker
