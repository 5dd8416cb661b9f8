#include "comm/backends/region_communicator.h"

#include <algorithm>
#include <cstring>

#include "comm/backends/checks.h"
#include "comm/base/error.h"
#include "comm/tree_sum.h"

namespace chorale::comm {
namespace {

// Up to here every rank reads all partials and adds them itself: one meeting. Above, each rank adds a slice and a
// second meeting gathers the slices, which moves (and adds) less from three ranks on.
constexpr size_t kOneShotBytes = 32u << 10;

bool reached(uint32_t rounds, uint32_t wanted) { return static_cast<int32_t>(rounds - wanted) >= 0; }

void copy_bytes(void* to, const void* from, size_t size) {
  if (size > 0) std::memcpy(to, from, size);
}

/// Elements of a chunk of `size` that rank `part` of `num_parts` adds; on cache lines where possible.
size_t slice_begin(size_t size, int part, int num_parts) {
  if (part == num_parts) return size;
  const size_t lines = (size + 15) / 16;
  return std::min(size, lines * part / num_parts * 16);
}

}  // namespace

RegionCommunicator::RegionCommunicator(std::shared_ptr<Region> region, int rank, std::chrono::nanoseconds spin)
    : region_(std::move(region)), rank_(rank), size_(region_->sizes().num_ranks), spin_(spin), inboxes_(size_) {
  arrive(*region_, rank_);
}

RegionCommunicator::~RegionCommunicator() {
  region_->presence(rank_).left.store(1);
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) region_->wake(peer);
}

bool RegionCommunicator::all_reached(uint32_t rounds) const {
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_ && !reached(region_->published(peer).rounds.load(), rounds)) return false;
  return true;
}

/// Whether somebody left without ever entering as many rounds: then no collective that needs them all will end.
bool RegionCommunicator::somebody_left_before(uint32_t rounds) const {
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_ && has_left(*region_, peer) && !reached(region_->published(peer).rounds.load(), rounds))
      return true;
  return false;
}

template <typename Ready>
void RegionCommunicator::await_rounds(uint32_t wanted, Deadline deadline, Ready ready) {
  wait_in_region(
      *region_, rank_, spin_, deadline, ready, [&] { return somebody_left_before(wanted); },
      [&] {
        std::string missing;
        for (int peer = 0; peer < size_; ++peer)
          if (peer != rank_ && !reached(region_->published(peer).rounds.load(), wanted))
            missing += fmt::format(" {}", peer);
        return fmt::format("rank{} of {} to enter a collective (round {})", missing, size_, wanted);
      });
}

std::byte* RegionCommunicator::enter_round(Deadline deadline) {
  // Everybody entered the round before, so nobody reads this slot's last contents (two rounds ago) any more.
  await_rounds(round_, deadline, [&] { return all_reached(round_); });
  return region_->slot(rank_, round_);
}

/// Those who wait for all are woken by the last one only: on fewer cores than ranks every wake-up is a switch.
void RegionCommunicator::publish(Audience audience) {
  region_->published(rank_).rounds.store(round_ + 1);
  if (audience == Audience::kWaitsForAll && !all_reached(round_ + 1)) return;
  for (int peer = 0; peer < size_; ++peer)
    if (peer != rank_) region_->wake(peer);
}

void RegionCommunicator::await_all(Deadline deadline) {
  await_rounds(round_ + 1, deadline, [&] { return all_reached(round_ + 1); });
}

void RegionCommunicator::barrier(Deadline deadline) {
  enter_round(deadline);
  publish(Audience::kWaitsForAll);
  await_all(deadline);
  finish_round();
}

void RegionCommunicator::broadcast(ByteSpan data, int root, Deadline deadline) {
  const size_t slot_bytes = region_->sizes().slot_bytes;
  for (size_t begin = 0; begin < data.size(); begin += slot_bytes) {
    const size_t size = std::min(slot_bytes, data.size() - begin);
    std::byte* slot = enter_round(deadline);
    if (rank_ == root) copy_bytes(slot, data.data() + begin, size);
    publish(rank_ == root ? Audience::kWaitsForThisRank : Audience::kWaitsForAll);
    if (rank_ != root) {
      const auto& rounds = region_->published(root).rounds;
      await_rounds(round_ + 1, deadline, [&] { return reached(rounds.load(), round_ + 1); });
      copy_bytes(data.data() + begin, slot_of(root), size);
    }
    finish_round();
  }
}

void RegionCommunicator::all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) {
  check_offsets(offsets, size_, all.size());
  const size_t slot_bytes = region_->sizes().slot_bytes;
  size_t largest = 0;
  for (int r = 0; r < size_; ++r) largest = std::max(largest, offsets[r + 1] - offsets[r]);
  for (size_t begin = 0; begin < largest; begin += slot_bytes) {
    const auto piece = [&](int r) {
      const size_t first = std::min(offsets[r] + begin, offsets[r + 1]);
      return all.subspan(first, std::min(slot_bytes, offsets[r + 1] - first));
    };
    std::byte* slot = enter_round(deadline);
    copy_bytes(slot, piece(rank_).data(), piece(rank_).size());
    publish(Audience::kWaitsForAll);
    await_all(deadline);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      copy_bytes(piece(peer).data(), slot_of(peer), piece(peer).size());
    }
    finish_round();
  }
}

size_t RegionCommunicator::chunk_elements(const TreeSchedule& schedule) const {
  int most_nodes = 1;
  for (int r = 0; r < size_; ++r)
    most_nodes = std::max(most_nodes, schedule.first_node[r + 1] - schedule.first_node[r]);
  const size_t elements = region_->sizes().slot_bytes / sizeof(float) / most_nodes;
  CHECK_GT(elements, 0u);
  return elements >= 16 ? elements / 16 * 16 : elements;
}

/// Writes elements [begin, begin + size) of this rank's partials, node after node, and announces them.
void RegionCommunicator::publish_partials(const TreeSchedule& schedule, std::span<const float> partials, size_t count,
                                          size_t begin, size_t size, Deadline deadline) {
  const int local_nodes = schedule.first_node[rank_ + 1] - schedule.first_node[rank_];
  auto* slot = reinterpret_cast<float*>(enter_round(deadline));
  for (int k = 0; k < local_nodes; ++k)
    copy_bytes(slot + k * size, partials.data() + k * count + begin, size * sizeof(float));
  publish(Audience::kWaitsForAll);
}

/// Points node_sources_ at element begin + skip of every node: in the slots of the others, in the caller's memory for
/// our own.
void RegionCommunicator::point_at_partials(const TreeSchedule& schedule, std::span<const float> partials, size_t count,
                                           size_t begin, size_t size, size_t skip) {
  node_sources_.resize(schedule.nodes.size());
  for (int r = 0; r < size_; ++r) {
    const int first = schedule.first_node[r];
    for (int node = first; node < schedule.first_node[r + 1]; ++node) {
      const size_t k = node - first;
      node_sources_[node] = r == rank_ ? partials.data() + k * count + begin + skip
                                       : reinterpret_cast<const float*>(slot_of(r)) + k * size + skip;
    }
  }
}

void RegionCommunicator::tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                                         Deadline deadline) {
  check_partials(schedule, *this, partials.size(), out.size());
  const size_t chunk = chunk_elements(schedule);
  if (size_ == 2 || schedule.nodes.size() * out.size_bytes() <= kOneShotBytes)
    reduce_one_shot(schedule, partials, out, chunk, deadline);
  else
    reduce_two_shot(schedule, partials, out, chunk, deadline);
}

void RegionCommunicator::reduce_one_shot(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                                         size_t chunk, Deadline deadline) {
  for (size_t begin = 0; begin < out.size(); begin += chunk) {
    const size_t size = std::min(chunk, out.size() - begin);
    publish_partials(schedule, partials, out.size(), begin, size, deadline);
    await_all(deadline);
    point_at_partials(schedule, partials, out.size(), begin, size, 0);
    tree_sum(schedule, node_sources_, size, out.data() + begin);
    finish_round();
  }
}

void RegionCommunicator::reduce_two_shot(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                                         size_t chunk, Deadline deadline) {
  for (size_t begin = 0; begin < out.size(); begin += chunk) {
    const size_t size = std::min(chunk, out.size() - begin);
    publish_partials(schedule, partials, out.size(), begin, size, deadline);
    await_all(deadline);
    const size_t mine = slice_begin(size, rank_, size_);
    const size_t my_size = slice_begin(size, rank_ + 1, size_) - mine;
    point_at_partials(schedule, partials, out.size(), begin, size, mine);
    tree_sum(schedule, node_sources_, my_size, out.data() + begin + mine);
    finish_round();

    std::byte* slot = enter_round(deadline);
    copy_bytes(slot, out.data() + begin + mine, my_size * sizeof(float));
    publish(Audience::kWaitsForAll);
    await_all(deadline);
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      const size_t theirs = slice_begin(size, peer, size_);
      copy_bytes(out.data() + begin + theirs, slot_of(peer),
                 (slice_begin(size, peer + 1, size_) - theirs) * sizeof(float));
    }
    finish_round();
  }
}

void RegionCommunicator::tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials,
                                             std::span<const size_t> counts_begin, std::span<float> out,
                                             Deadline deadline) {
  const size_t count = counts_begin.back();
  check_offsets(counts_begin, size_, count);
  check_partials(schedule, *this, partials.size(), count);
  const size_t first = counts_begin[rank_];
  const size_t last = counts_begin[rank_ + 1];
  CHECK_EQ(out.size(), last - first);
  const size_t chunk = chunk_elements(schedule);
  for (size_t begin = 0; begin < count; begin += chunk) {
    const size_t size = std::min(chunk, count - begin);
    publish_partials(schedule, partials, count, begin, size, deadline);
    await_all(deadline);
    const size_t from = std::clamp(first, begin, begin + size);
    const size_t to = std::clamp(last, begin, begin + size);
    if (from < to) {
      point_at_partials(schedule, partials, count, begin, size, from - begin);
      tree_sum(schedule, node_sources_, to - from, out.data() + (from - first));
    }
    finish_round();
  }
}

}  // namespace chorale::comm
