// The memory that ranks of one host share (threads of a process, or processes that map one segment): for each rank a
// published-round counter, a doorbell and two slots for collectives, and for each ordered pair a byte ring for
// messages. Included by backends only; it knows where things lie and how to wait for them, and moves no data.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "comm/base/deadline.h"
#include "comm/base/futex.h"

namespace chorale::comm {

/// Sizes that all ranks of a region agree on.
struct RegionSizes {
  int num_ranks = 0;
  size_t slot_bytes = 0;     // one collective round of one rank; a multiple of 64
  size_t channel_bytes = 0;  // ring of one ordered pair; a power of two
};
/// About 16 MiB at most while slots (16 .. 256 KiB) and rings (4 .. 256 KiB) shrink with the number of ranks.
RegionSizes default_region_sizes(int num_ranks);
size_t region_bytes(const RegionSizes& sizes);

/// Owner of mapped memory.
class Mapping {
 public:
  Mapping(void* base, size_t size) : base_(static_cast<std::byte*>(base)), size_(size) {}
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  std::byte* base() const { return base_; }
  size_t size() const { return size_; }

 private:
  std::byte* base_;
  size_t size_;
};
std::shared_ptr<Mapping> map_private_region(size_t size);  // for threads of this process

struct alignas(64) Published {
  std::atomic<uint32_t> rounds;  // collective rounds that the rank has entered
};
struct alignas(64) Doorbell {
  std::atomic<uint32_t> rings;     // the futex word that the rank sleeps on
  std::atomic<uint32_t> sleeping;  // 1 while the rank is about to sleep or sleeps
};
struct alignas(64) Presence {
  std::atomic<uint32_t> left;           // 1 once the rank destroyed its communicator
  std::atomic<int32_t> pid;             // 0 until the rank arrived
  std::atomic<uint64_t> pid_namespace;  // pids of another one mean nothing here
};
struct ByteRing {
  alignas(64) std::atomic<uint64_t> written;  // by the sender
  alignas(64) std::atomic<uint64_t> read;     // by the receiver
  alignas(64) std::byte data[1];              // [channel_bytes]
};

class Region {
 public:
  Region(std::shared_ptr<Mapping> mapping, const RegionSizes& sizes);
  const RegionSizes& sizes() const { return sizes_; }
  Published& published(int rank) const { return *at<Published>(rank * sizeof(Published)); }
  Doorbell& doorbell(int rank) const { return *at<Doorbell>(doorbells_ + rank * sizeof(Doorbell)); }
  Presence& presence(int rank) const { return *at<Presence>(presences_ + rank * sizeof(Presence)); }
  /// Slots alternate by round, so that a rank may publish round r + 1 while a slow one still reads round r.
  std::byte* slot(int rank, uint32_t round) const {
    return mapping_->base() + slots_ + (2 * rank + (round & 1)) * sizes_.slot_bytes;
  }
  ByteRing& ring(int source, int destination) const {
    return *at<ByteRing>(rings_ + (source * sizes_.num_ranks + destination) * ring_stride_);
  }

  /// Wakes `rank` if it sleeps. Call after the store that it may wait for.
  void wake(int rank) const;

 private:
  template <typename T>
  T* at(size_t offset) const {
    return reinterpret_cast<T*>(mapping_->base() + offset);
  }
  std::shared_ptr<Mapping> mapping_;
  RegionSizes sizes_;
  size_t doorbells_, presences_, slots_, rings_, ring_stride_;
};

/// Marks `rank` as present in this process.
void arrive(const Region& region, int rank);
/// Whether `rank` left the group or its process ended.
bool has_left(const Region& region, int rank);
[[noreturn]] void fail_waiting(const std::string& for_what, bool peer_left);

/// Returns once ready(): spins `spin`, then sleeps on rank `self`'s doorbell. Throws Error{kPeerLost} when peer_left()
/// and Error{kDeadlineExceeded} naming `describe()`. Loads in `ready` must be sequentially consistent: either this rank
/// sees the store or the one who stored sees it sleeping.
template <typename Ready, typename PeerLeft, typename Describe>
void wait_in_region(const Region& region, int self, std::chrono::nanoseconds spin, Deadline deadline, Ready ready,
                    PeerLeft peer_left, Describe describe) {
  if (spin_until(ready, spin)) return;
  Doorbell& bell = region.doorbell(self);
  for (;;) {
    const uint32_t rings = bell.rings.load();
    bell.sleeping.store(1);
    const bool left = peer_left();  // before ready: what a peer published before it left still counts
    if (ready()) break;
    if (left || deadline.expired()) {
      bell.sleeping.store(0);
      fail_waiting(describe(), left);
    }
    // Bounded, because a killed process rings no bell: its absence is looked up now and then.
    const Deadline look_again = Deadline::after(std::chrono::milliseconds(500));
    futex_wait(bell.rings, rings, look_again.when() < deadline.when() ? look_again : deadline);
  }
  bell.sleeping.store(0);
}

}  // namespace chorale::comm
