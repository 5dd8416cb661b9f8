#include "comm/backends/region.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "comm/base/error.h"

namespace chorale::comm {
namespace {

constexpr size_t kRingHeader = offsetof(ByteRing, data);

size_t ring_stride(const RegionSizes& sizes) { return kRingHeader + sizes.channel_bytes; }

uint64_t own_pid_namespace() {
  static const uint64_t inode = [] {
    struct stat status {};
    return stat("/proc/self/ns/pid", &status) == 0 ? static_cast<uint64_t>(status.st_ino) : 0;
  }();
  return inode;
}

}  // namespace

RegionSizes default_region_sizes(int num_ranks) {
  const auto n = static_cast<size_t>(num_ranks);
  RegionSizes sizes;
  sizes.num_ranks = num_ranks;
  sizes.slot_bytes = std::bit_floor(std::clamp<size_t>((4u << 20) / (2 * n), 16u << 10, 256u << 10));
  sizes.channel_bytes = std::bit_floor(std::clamp<size_t>((12u << 20) / (n * n), 4u << 10, 256u << 10));
  return sizes;
}

size_t region_bytes(const RegionSizes& sizes) {
  const auto n = static_cast<size_t>(sizes.num_ranks);
  return n * (sizeof(Published) + sizeof(Doorbell) + sizeof(Presence)) + 2 * n * sizes.slot_bytes +
         n * n * ring_stride(sizes);
}

Mapping::~Mapping() { munmap(base_, size_); }

std::shared_ptr<Mapping> map_private_region(size_t size) {
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    fail(ErrorCode::kResourceExhausted, "no memory for a communicator of {} bytes: {}", size, std::strerror(errno));
  return std::make_shared<Mapping>(base, size);
}

Region::Region(std::shared_ptr<Mapping> mapping, const RegionSizes& sizes)
    : mapping_(std::move(mapping)), sizes_(sizes) {
  CHECK_GE(mapping_->size(), region_bytes(sizes));
  CHECK(std::has_single_bit(sizes.channel_bytes) && sizes.slot_bytes % 64 == 0);
  const auto n = static_cast<size_t>(sizes.num_ranks);
  doorbells_ = n * sizeof(Published);
  presences_ = doorbells_ + n * sizeof(Doorbell);
  slots_ = presences_ + n * sizeof(Presence);
  rings_ = slots_ + 2 * n * sizes.slot_bytes;
  ring_stride_ = ring_stride(sizes);
}

void Region::wake(int rank) const {
  Doorbell& bell = doorbell(rank);
  if (bell.sleeping.load() == 0 || bell.sleeping.exchange(0) == 0) return;
  bell.rings.fetch_add(1);
  futex_wake_all(bell.rings);
}

void arrive(const Region& region, int rank) {
  Presence& presence = region.presence(rank);
  presence.pid_namespace.store(own_pid_namespace());
  presence.pid.store(getpid());
}

bool has_left(const Region& region, int rank) {
  const Presence& presence = region.presence(rank);
  if (presence.left.load() != 0) return true;
  const pid_t pid = presence.pid.load();
  if (pid <= 0 || pid == getpid() || presence.pid_namespace.load() != own_pid_namespace()) return false;
  return kill(pid, 0) != 0 && errno == ESRCH;
}

void fail_waiting(const std::string& for_what, bool peer_left) {
  if (peer_left) fail(ErrorCode::kPeerLost, "lost a peer while waiting for {}", for_what);
  fail(ErrorCode::kDeadlineExceeded, "the deadline passed while waiting for {}", for_what);
}

}  // namespace chorale::comm
