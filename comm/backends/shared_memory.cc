// Ranks as processes of one host: the region lies in a POSIX shared memory segment that rank 0 of the group makes and
// that loses its name as soon as all have mapped it, so that nothing stays behind when processes are killed.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "comm/backends/checks.h"
#include "comm/backends/factories.h"
#include "comm/backends/region_communicator.h"
#include "comm/base/error.h"
#include "comm/base/fd.h"
#include "comm/base/log.h"
#include "comm/control_handshake.h"
#include "comm/world.h"

namespace chorale::comm {
namespace {

class SharedMemoryCommunicator final : public RegionCommunicator {
 public:
  SharedMemoryCommunicator(std::shared_ptr<Region> region, std::unique_ptr<Communicator> group,
                           const SharedMemoryOptions& options)
      : RegionCommunicator(std::move(region), group->rank(), spin_time(options.busy_threads_on_host)),
        group_(std::move(group)),
        options_(options) {}
  std::string backend() const override { return "shared_memory"; }

  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline deadline) override {
    check_members(members, *this);
    if (members.size() == 1) return make_single();
    return make_shared_memory(group_->split(members, deadline), options_, deadline);
  }

 private:
  std::unique_ptr<Communicator>
      group_;  // the same ranks over MPI: names segments, and takes over where one cannot be had
  const SharedMemoryOptions options_;
};

/// What rank 0 tells the others.
struct Offer {
  uint64_t size = 0;
  char name[64] = {};  // "": there is no segment
};

std::shared_ptr<Mapping> map_segment(const Fd& fd, size_t size) {
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  return base == MAP_FAILED ? nullptr : std::make_shared<Mapping>(base, size);
}

/// An empty offer and the reason when there is no room.
Offer create_segment(size_t size, const SharedMemoryOptions& options, std::shared_ptr<Mapping>& mapping,
                     std::string& reason) {
  Offer offer;
  if (size > options.limit_bytes) {
    reason = fmt::format("only {} bytes are allowed", options.limit_bytes);
    return offer;
  }
  const std::string name = fmt::format("/chorale-{}-{}", options.epoch, random_secret().substr(0, 16));
  Fd fd(shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (!fd) {
    reason = fmt::format("shm_open: {}", std::strerror(errno));
    return offer;
  }
  // Reserve now: writing to a page that a full /dev/shm cannot provide would end the process with SIGBUS.
  int rc = posix_fallocate(fd.get(), 0, static_cast<off_t>(size));
  while (rc == EINTR) rc = posix_fallocate(fd.get(), 0, static_cast<off_t>(size));
  if (rc == 0) mapping = map_segment(fd, size);
  if (!mapping) {
    reason = std::strerror(rc != 0 ? rc : errno);
    shm_unlink(name.c_str());
    return offer;
  }
  offer.size = size;
  std::memcpy(offer.name, name.data(), name.size());
  return offer;
}

void warn_once(int num_ranks, size_t size, const std::string& reason) {
  static std::atomic<bool> warned{false};
  if (!warned.exchange(true))
    log_warn(
        "no shared memory segment of {} KiB for {} ranks of this host ({}); using MPI instead, which is slower: "
        "enlarge /dev/shm",
        size >> 10, num_ranks, reason);
}

const Registry<WorldBackend>::Add kRegistered({
    .name = "shared_memory",
    .priority = 20,
    .fits = [](const WorldMap& map) { return map.num_hosts() == 1; },
    .make =
        [](std::unique_ptr<Communicator> mpi_world, const WorldMap& map, const WorldOptions& options) {
          const SharedMemoryOptions shared{.epoch = options.epoch,
                                           .busy_threads_on_host = map.size * options.threads_per_rank,
                                           .limit_bytes = options.shared_memory_limit_bytes};
          return make_shared_memory(std::move(mpi_world), shared, options.deadline);
        },
});

}  // namespace

std::unique_ptr<Communicator> make_shared_memory(std::unique_ptr<Communicator> group,
                                                 const SharedMemoryOptions& options, Deadline deadline) {
  const int num_ranks = group->size();
  const int rank = group->rank();
  if (num_ranks == 1) return group;
  const RegionSizes sizes = default_region_sizes(num_ranks);
  const size_t size = region_bytes(sizes);
  std::shared_ptr<Mapping> mapping;
  std::string reason = "another rank cannot map it";
  Offer offer;
  if (rank == 0) offer = create_segment(size, options, mapping, reason);
  group->broadcast(std::as_writable_bytes(std::span(&offer, 1)), 0, deadline);
  if (rank != 0 && offer.name[0] != '\0' && offer.size == size) {
    const Fd fd(shm_open(offer.name, O_RDWR | O_CLOEXEC, 0));
    if (fd) mapping = map_segment(fd, size);
  }
  // All use it or none does.
  std::vector<std::byte> mapped(num_ranks);
  std::vector<size_t> offsets;
  for (int r = 0; r <= num_ranks; ++r) offsets.push_back(r);
  mapped[rank] = std::byte{mapping != nullptr};
  group->all_gather(mapped, offsets, deadline);
  if (rank == 0 && offer.name[0] != '\0') shm_unlink(offer.name);
  for (std::byte one : mapped) {
    if (one != std::byte{0}) continue;
    if (rank == 0) warn_once(num_ranks, size, reason);
    return group;
  }
  auto region = std::make_shared<Region>(std::move(mapping), sizes);
  return std::make_unique<SharedMemoryCommunicator>(std::move(region), std::move(group), options);
}

}  // namespace chorale::comm
