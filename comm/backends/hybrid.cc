// Several hosts with several ranks each: messages inside a host go through its shared memory, those between hosts and
// the collectives of a group that spans hosts through MPI. A group inside one host (the usual tensor-parallel group) is
// a shared memory one.

#include <algorithm>

#include "comm/backends/checks.h"
#include "comm/backends/factories.h"
#include "comm/base/error.h"
#include "comm/world.h"

namespace chorale::comm {
namespace {

class HybridCommunicator final : public Communicator {
 public:
  /// `place[r]` is rank r's place in `local`, or -1 on another host.
  HybridCommunicator(std::unique_ptr<Communicator> all, std::unique_ptr<Communicator> local, std::vector<int> place,
                     std::vector<int> host_of, const SharedMemoryOptions& options)
      : all_(std::move(all)),
        local_(std::move(local)),
        place_(std::move(place)),
        host_of_(std::move(host_of)),
        options_(options) {}

  int rank() const override { return all_->rank(); }
  int size() const override { return all_->size(); }
  std::string backend() const override { return "hybrid"; }

  void send(ConstByteSpan data, int destination, int tag, Deadline deadline) override {
    check_peer(*this, destination, tag);
    if (place_[destination] >= 0) return local_->send(data, place_[destination], tag, deadline);
    all_->send(data, destination, tag, deadline);
  }
  void recv(ByteSpan data, int source, int tag, Deadline deadline) override {
    check_peer(*this, source, tag);
    if (place_[source] >= 0) return local_->recv(data, place_[source], tag, deadline);
    all_->recv(data, source, tag, deadline);
  }
  void barrier(Deadline deadline) override { all_->barrier(deadline); }
  void broadcast(ByteSpan data, int root, Deadline deadline) override { all_->broadcast(data, root, deadline); }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) override {
    all_->all_gather(all, offsets, deadline);
  }
  void tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline deadline) override {
    all_->tree_all_reduce(schedule, partials, out, deadline);
  }
  void tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials,
                           std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) override {
    all_->tree_reduce_scatter(schedule, partials, counts_begin, out, deadline);
  }

  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline deadline) override {
    check_members(members, *this);
    if (members.size() == 1) return make_single();
    std::vector<int> hosts;
    for (int member : members) hosts.push_back(host_of_[member]);
    return make_hybrid(all_->split(members, deadline), hosts, options_, deadline);
  }

 private:
  std::unique_ptr<Communicator> all_;    // over MPI
  std::unique_ptr<Communicator> local_;  // the ranks of this host
  std::vector<int> place_;               // [size]
  std::vector<int> host_of_;             // [size]
  const SharedMemoryOptions options_;
};

const Registry<WorldBackend>::Add kRegistered({
    .name = "hybrid",
    .priority = 10,
    .fits = [](const WorldMap& map) { return map.num_hosts() > 1 && map.num_hosts() < map.size; },
    .make =
        [](std::unique_ptr<Communicator> mpi_world, const WorldMap& map, const WorldOptions& options) {
          const SharedMemoryOptions shared{.epoch = options.epoch,
                                           .busy_threads_on_host = map.ranks_on_host() * options.threads_per_rank,
                                           .limit_bytes = options.shared_memory_limit_bytes};
          return make_hybrid(std::move(mpi_world), map.host_of, shared, options.deadline);
        },
});

}  // namespace

std::unique_ptr<Communicator> make_hybrid(std::unique_ptr<Communicator> group, const std::vector<int>& host_of,
                                          const SharedMemoryOptions& options, Deadline deadline) {
  const int size = group->size();
  const int rank = group->rank();
  CHECK_EQ(host_of.size(), static_cast<size_t>(size));
  const auto same_host = [&](int a) { return host_of[a] == host_of[rank]; };
  if (std::ranges::count(host_of, host_of[0]) == size) return make_shared_memory(std::move(group), options, deadline);
  const bool any_shared = std::ranges::any_of(host_of, [&](int host) { return std::ranges::count(host_of, host) > 1; });
  if (!any_shared) return group;
  std::vector<int> beside;
  std::vector<int> place(size, -1);
  for (int r = 0; r < size; ++r) {
    if (!same_host(r)) continue;
    place[r] = static_cast<int>(beside.size());
    beside.push_back(r);
  }
  auto local = make_shared_memory(group->split(beside, deadline), options, deadline);
  return std::make_unique<HybridCommunicator>(std::move(group), std::move(local), std::move(place), host_of, options);
}

}  // namespace chorale::comm
