// The memory in which ranks of the fake NCCL (fake_nccl.cc) meet, and how operations move through it: one slot for a
// chunk between each two ranks in each direction, and a bell a rank. Included by that file only.
#pragma once

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "comm/cuda/nccl_types.h"

namespace fake_nccl {
using chorale::nccl::kRemoteError;
using chorale::nccl::kSuccess;
using chorale::nccl::Result;
using chorale::nccl::UniqueId;

constexpr Result kInvalidUsage = 5;
constexpr int kMostRanks = 16;
constexpr size_t kChunkBytes = size_t{64} << 10;

// One chunk under way from one rank to another. Empty: taken == given.
struct Channel {
  std::atomic<uint32_t> given, taken;
  uint32_t kind;  // of operation: a peer that is in another one never takes it
  uint32_t bytes;
  uint64_t total;
  std::byte data[kChunkBytes];
};
struct Room {
  std::atomic<uint32_t> num_joined;
  std::atomic<uint32_t> doorbell[kMostRanks];  // moves when a rank has something to look at
  Channel channel[];                           // [from * num_ranks + to]
};

inline void futex(std::atomic<uint32_t>& word, int operation, uint32_t value, const timespec* timeout) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), operation, value, timeout, nullptr, 0);
}

/// Of the MPI world, else of the communicator.
inline int rank_in_world(int rank) {
  const char* world_rank = std::getenv("OMPI_COMM_WORLD_RANK");
  return world_rank == nullptr ? rank : std::atoi(world_rank);
}

struct Fault {
  std::string name;
  uint64_t number = 0;
};
inline Fault fault_of(int rank) {
  const char* text = std::getenv("FAKE_NCCL_FAULT");
  if (text == nullptr) return {};
  std::string fault = text;
  if (const size_t at = fault.find('@'); at != std::string::npos) {
    if (std::stoi(fault.substr(at + 1)) != rank_in_world(rank)) return {};
    fault.resize(at);
  }
  const size_t colon = fault.find(':');
  return {fault.substr(0, colon), colon == std::string::npos ? 0 : std::stoull(fault.substr(colon + 1))};
}

/// Moves when a test gives up what hangs.
inline std::atomic<uint32_t> num_given_up{0};

/// Names of rooms that this process opened and whose ranks have not all come.
struct OpenNames {
  std::mutex mutex;
  std::set<std::string> names;
};
inline OpenNames open_names;

class Communicator {
 public:
  Communicator(int num_ranks, int rank, const UniqueId& id, int max_ctas)
      : num_ranks(num_ranks),
        rank(rank),
        max_ctas(max_ctas),
        name_("/fake_nccl_" + std::string(id.internal)),
        fault_(fault_of(rank)) {
    log("init", 0, false);
  }
  ~Communicator() {
    if (room_ != nullptr) munmap(room_, room_bytes());
  }

  /// Whether all ranks are here; never waits.
  bool is_ready() {
    if (fault_.name == "hang-init") return false;
    if (room_ == nullptr && !open_room()) return false;
    if (!has_joined_) {
      has_joined_ = true;
      room_->num_joined.fetch_add(1);
    }
    if (room_->num_joined.load() < static_cast<uint32_t>(num_ranks)) return false;
    if (rank == 0) shm_unlink(name_.c_str());
    const std::lock_guard lock(open_names.mutex);
    open_names.names.erase(name_);
    return true;
  }

  Result async_error() { return state_.load(); }
  const char* last_error() const { return state_.load() == kSuccess ? "" : "the fault that the test asked for"; }
  /// Where it must not be captured it is not usable any more either, as the real one.
  bool refuses_capture() {
    if (fault_.name == "refuse-capture") state_ = kInvalidUsage;
    return state_.load() != kSuccess;
  }

  /// A line for the test: RANK of SIZE MAX_CTAS OPERATION BYTES (of this rank's argument), and whether it is captured.
  void log(const char* operation, size_t bytes, bool is_captured) const {
    const char* path = std::getenv("FAKE_NCCL_LOG");
    if (path == nullptr) return;
    char line[160];
    const int length = std::snprintf(line, sizeof line, "%d %d/%d ctas=%d %s %zu %s\n", rank_in_world(rank), rank,
                                     num_ranks, max_ctas, operation, bytes, is_captured ? "captured" : "-");
    const int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0) return;
    if (write(fd, line, static_cast<size_t>(length)) != length) std::abort();
    close(fd);
  }
  bool is_idle() const { return num_running_.load() == 0; }

  /// On a stream's thread: moves the chunks of all transfers of a group until they are through.
  struct Transfer {
    std::byte* data;
    size_t bytes;
    int peer;
    bool is_send;
    uint32_t kind;
    size_t done = 0;
    bool is_through = false;  // also where there are no bytes, a chunk travels
  };
  bool move(std::vector<Transfer>& transfers) {
    std::atomic<uint32_t>& bell = room_->doorbell[rank];
    for (;;) {
      const uint32_t before = bell.load();
      bool has_moved = false, is_through = true;
      for (Transfer& transfer : transfers) {
        if (!transfer.is_through && !is_blocked(transfers, transfer)) has_moved = advance(transfer) || has_moved;
        is_through = is_through && transfer.is_through;
      }
      if (is_through) return true;
      if (is_given_up()) return false;
      const timespec timeout{0, 20'000'000};
      if (!has_moved) futex(bell, FUTEX_WAIT, before, &timeout);
    }
  }

  /// Faults of an operation; false where it must not go on.
  bool pass_fault() {
    const uint64_t number = ++num_begun_;
    if (fault_.name == "slow") pause(fault_.number * 1'000'000);
    if (fault_.number != number || (fault_.name != "hang-op" && fault_.name != "error-op")) return true;
    if (fault_.name == "error-op") state_ = kRemoteError;
    while (!is_given_up()) pause(5'000'000);
    return false;
  }
  /// Lives while an operation runs.
  struct Running {
    explicit Running(Communicator& comm) : comm(comm) { ++comm.num_running_; }
    ~Running() { --comm.num_running_; }
    Communicator& comm;
  };

  const int num_ranks, rank, max_ctas;
  // Of the thread that calls:
  int polls_left = 2;  // before what was asked is admitted to be done
  bool is_initialised = false, is_finalising = false;

 private:
  bool is_given_up() const { return num_given_up != given_up_before_; }
  size_t room_bytes() const {
    return sizeof(Room) + sizeof(Channel) * static_cast<size_t>(num_ranks) * static_cast<size_t>(num_ranks);
  }
  bool open_room() {
    {
      const std::lock_guard lock(open_names.mutex);
      open_names.names.insert(name_);
    }
    const int fd = shm_open(name_.c_str(), O_RDWR | O_CREAT, 0600);
    if (fd < 0) return false;
    if (ftruncate(fd, static_cast<off_t>(room_bytes())) == 0) {
      void* memory = mmap(nullptr, room_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
      if (memory != MAP_FAILED) room_ = static_cast<Room*>(memory);
    }
    close(fd);
    return room_ != nullptr;
  }

  // Transfers between the same two ranks in the same direction go one after the other.
  static bool is_blocked(const std::vector<Transfer>& transfers, const Transfer& transfer) {
    for (const Transfer& earlier : transfers) {
      if (&earlier == &transfer) return false;
      if (!earlier.is_through && earlier.peer == transfer.peer && earlier.is_send == transfer.is_send) return true;
    }
    return false;
  }

  bool advance(Transfer& transfer) {
    const int from = transfer.is_send ? rank : transfer.peer, to = transfer.is_send ? transfer.peer : rank;
    Channel& channel = room_->channel[from * num_ranks + to];
    const bool is_full = channel.given.load() != channel.taken.load();
    if (transfer.is_send == is_full) return false;
    if (transfer.is_send) {
      channel.kind = transfer.kind;
      channel.total = transfer.bytes;
      channel.bytes = static_cast<uint32_t>(std::min(kChunkBytes, transfer.bytes - transfer.done));
      std::memcpy(channel.data, transfer.data + transfer.done, channel.bytes);
      transfer.done += channel.bytes;
      channel.given.fetch_add(1);
    } else {
      if (channel.kind != transfer.kind || channel.total != transfer.bytes) return false;  // and so for ever
      std::memcpy(transfer.data + transfer.done, channel.data, channel.bytes);
      transfer.done += channel.bytes;
      channel.taken.fetch_add(1);
    }
    transfer.is_through = transfer.done == transfer.bytes;
    std::atomic<uint32_t>& bell = room_->doorbell[transfer.peer];
    bell.fetch_add(1);
    futex(bell, FUTEX_WAKE, INT32_MAX, nullptr);
    return true;
  }

  static void pause(uint64_t nanoseconds) {
    std::atomic<uint32_t> nobody{0};
    const timespec timeout{static_cast<time_t>(nanoseconds / 1'000'000'000),
                           static_cast<long>(nanoseconds % 1'000'000'000)};
    futex(nobody, FUTEX_WAIT, 0, &timeout);
  }

  const std::string name_;
  const Fault fault_;
  Room* room_ = nullptr;
  bool has_joined_ = false;
  const uint32_t given_up_before_ = num_given_up;
  std::atomic<Result> state_{kSuccess};
  std::atomic<uint64_t> num_running_{0}, num_begun_{0};
};

}  // namespace fake_nccl
