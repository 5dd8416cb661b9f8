// Ranks as threads of one process: the region lies in private memory. For tests and offline tools.

#include "comm/backends/checks.h"
#include "comm/backends/region_communicator.h"
#include "comm/base/error.h"
#include "comm/thread_group.h"

namespace chorale::comm {
namespace {

class ThreadCommunicator final : public RegionCommunicator {
 public:
  using RegionCommunicator::RegionCommunicator;
  std::string backend() const override { return "thread"; }

  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline deadline) override {
    const int place = check_members(members, *this);
    const int num_members = static_cast<int>(members.size());
    if (num_members == 1) return make_single();
    // The first member makes the region; the others get a pointer to a reference that is theirs to consume.
    std::shared_ptr<Region> region;
    if (place == 0) {
      const RegionSizes sizes = default_region_sizes(num_members);
      region = std::make_shared<Region>(map_private_region(region_bytes(sizes)), sizes);
      for (int i = 1; i < num_members; ++i) {
        auto* reference = new std::shared_ptr<Region>(region);
        send(std::as_bytes(std::span(&reference, 1)), members[i], kFirstInternalTag, deadline);
      }
    } else {
      std::shared_ptr<Region>* reference = nullptr;
      recv(std::as_writable_bytes(std::span(&reference, 1)), members[0], kFirstInternalTag, deadline);
      region = *reference;
      delete reference;
    }
    return std::make_unique<ThreadCommunicator>(std::move(region), place, spin());
  }
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_threads(const ThreadGroupOptions& options) {
  RegionSizes sizes = default_region_sizes(options.num_ranks);
  if (options.slot_bytes > 0) sizes.slot_bytes = options.slot_bytes;
  if (options.channel_bytes > 0) sizes.channel_bytes = options.channel_bytes;
  const auto region = std::make_shared<Region>(map_private_region(region_bytes(sizes)), sizes);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < options.num_ranks; ++rank)
    ranks.push_back(std::make_unique<ThreadCommunicator>(region, rank, spin_time(options.num_ranks)));
  return ranks;
}

std::vector<std::unique_ptr<Communicator>> make_threads(int size) {
  CHECK_GE(size, 1);
  return make_threads(ThreadGroupOptions{.num_ranks = size});
}

}  // namespace chorale::comm
