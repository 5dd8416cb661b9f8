// The Communicator over a Region: the same code serves threads (thread.cc) and processes of one host
// (shared_memory.cc), which only differ in where the region comes from. Included by backends only.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "comm/backends/region.h"
#include "comm/base/bytes.h"
#include "comm/communicator.h"

namespace chorale::comm {

/// Collectives run in rounds that every rank enters in the same order. A rank writes its slot of the round, publishes,
/// waits for the ranks it needs and reads their slots. Entering round r says that the rank is done with reading round r
/// - 1, so a slot may be written again, two rounds later, once all have entered the round between.
class RegionCommunicator : public Communicator {
 public:
  RegionCommunicator(std::shared_ptr<Region> region, int rank, std::chrono::nanoseconds spin);
  ~RegionCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void send(ConstByteSpan data, int destination, int tag, Deadline deadline) override;
  void recv(ByteSpan data, int source, int tag, Deadline deadline) override;
  void barrier(Deadline deadline) override;
  void broadcast(ByteSpan data, int root, Deadline deadline) override;
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) override;
  void tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline deadline) override;
  void tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials,
                           std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) override;

 protected:
  std::chrono::nanoseconds spin() const { return spin_; }

 private:
  struct MessageHeader {
    uint64_t size = 0;
    int32_t tag = 0;
    uint32_t unused = 0;
  };
  /// A message on its way out of a ring into this rank's memory.
  struct Arrival {
    MessageHeader header;
    Bytes data;
    size_t filled = 0;
  };
  struct Inbox {
    std::deque<Arrival> complete;
    std::unique_ptr<Arrival> partial;
  };

  // Collectives.
  std::byte* enter_round(Deadline deadline);  // this rank's slot, free to write
  enum class Audience { kWaitsForAll, kWaitsForThisRank };
  void publish(Audience audience);
  bool all_reached(uint32_t rounds) const;
  bool somebody_left_before(uint32_t rounds) const;
  template <typename Ready>
  void await_rounds(uint32_t wanted, Deadline deadline, Ready ready);
  void await_all(Deadline deadline);
  const std::byte* slot_of(int peer) const { return region_->slot(peer, round_); }
  void finish_round() { ++round_; }

  void publish_partials(const TreeSchedule& schedule, std::span<const float> partials, size_t count, size_t begin,
                        size_t size, Deadline deadline);
  void point_at_partials(const TreeSchedule& schedule, std::span<const float> partials, size_t count, size_t begin,
                         size_t size, size_t skip);
  void reduce_one_shot(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out, size_t chunk,
                       Deadline deadline);
  void reduce_two_shot(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out, size_t chunk,
                       Deadline deadline);
  size_t chunk_elements(const TreeSchedule& schedule) const;

  // Messages.
  void write_ring(int destination, ConstByteSpan data, Deadline deadline);
  void read_ring(int source, ByteSpan data, Deadline deadline);
  size_t readable(int source) const;
  void take_from_ring(int source, std::byte* to, size_t size);
  bool drain(int source);
  bool anything_to_drain() const;

  const std::shared_ptr<Region> region_;
  const int rank_;
  const int size_;
  const std::chrono::nanoseconds spin_;
  uint32_t round_ = 0;
  std::vector<Inbox> inboxes_;              // [size]
  std::vector<const float*> node_sources_;  // [num_nodes], scratch
};

}  // namespace chorale::comm
