// Messages between two ranks of a region: a byte ring per ordered pair, so that a message larger than the ring streams
// through it while the receiver copies.

#include <algorithm>
#include <cstring>

#include "comm/backends/checks.h"
#include "comm/backends/region_communicator.h"
#include "comm/base/error.h"

namespace chorale::comm {

size_t RegionCommunicator::readable(int source) const {
  const ByteRing& ring = region_->ring(source, rank_);
  return ring.written.load() - ring.read.load();
}

/// REQUIRES: size <= readable(source).
void RegionCommunicator::take_from_ring(int source, std::byte* to, size_t size) {
  ByteRing& ring = region_->ring(source, rank_);
  const size_t capacity = region_->sizes().channel_bytes;
  const uint64_t position = ring.read.load();
  const size_t offset = position & (capacity - 1);
  const size_t until_wrap = std::min(size, capacity - offset);
  std::memcpy(to, ring.data + offset, until_wrap);
  std::memcpy(to + until_wrap, ring.data, size - until_wrap);
  ring.read.store(position + size);
  region_->wake(source);
}

void RegionCommunicator::read_ring(int source, ByteSpan data, Deadline deadline) {
  const size_t capacity = region_->sizes().channel_bytes;
  while (!data.empty()) {
    // A quarter of the ring at a time, so that the sender refills it while we copy.
    wait_in_region(
        *region_, rank_, spin_, deadline, [&] { return readable(source) > 0; },
        [&] { return has_left(*region_, source); }, [&] { return fmt::format("a message of rank {}", source); });
    const size_t size = std::min({data.size(), readable(source), capacity / 4});
    take_from_ring(source, data.data(), size);
    data = data.subspan(size);
  }
}

void RegionCommunicator::write_ring(int destination, ConstByteSpan data, Deadline deadline) {
  ByteRing& ring = region_->ring(rank_, destination);
  const size_t capacity = region_->sizes().channel_bytes;
  const auto space = [&] { return capacity - (ring.written.load() - ring.read.load()); };
  while (!data.empty()) {
    wait_in_region(
        *region_, rank_, spin_, deadline, [&] { return space() > 0 || anything_to_drain(); },
        [&] { return has_left(*region_, destination); },
        [&] { return fmt::format("rank {} to receive a message", destination); });
    if (space() == 0) {
      // The peer may itself be blocked in a send to us: take its bytes, or neither would ever go on.
      for (int source = 0; source < size_; ++source) drain(source);
      continue;
    }
    const uint64_t position = ring.written.load();
    const size_t offset = position & (capacity - 1);
    const size_t size = std::min({data.size(), space(), capacity / 4});
    const size_t until_wrap = std::min(size, capacity - offset);
    std::memcpy(ring.data + offset, data.data(), until_wrap);
    std::memcpy(ring.data, data.data() + until_wrap, size - until_wrap);
    ring.written.store(position + size);
    region_->wake(destination);
    data = data.subspan(size);
  }
}

bool RegionCommunicator::anything_to_drain() const {
  for (int source = 0; source < size_; ++source) {
    if (source == rank_) continue;
    const size_t needed = inboxes_[source].partial ? 1 : sizeof(MessageHeader);
    if (readable(source) >= needed) return true;
  }
  return false;
}

/// Moves what lies in the ring into the inbox, without waiting. Returns whether a message became complete.
bool RegionCommunicator::drain(int source) {
  if (source == rank_) return false;
  Inbox& inbox = inboxes_[source];
  if (!inbox.partial) {
    if (readable(source) < sizeof(MessageHeader)) return false;
    inbox.partial = std::make_unique<Arrival>();
    take_from_ring(source, reinterpret_cast<std::byte*>(&inbox.partial->header), sizeof(MessageHeader));
    inbox.partial->data.resize(inbox.partial->header.size);
  }
  Arrival& arrival = *inbox.partial;
  const size_t size = std::min(readable(source), arrival.data.size() - arrival.filled);
  if (size > 0) take_from_ring(source, arrival.data.data() + arrival.filled, size);
  arrival.filled += size;
  if (arrival.filled < arrival.data.size()) return false;
  inbox.complete.push_back(std::move(arrival));
  inbox.partial.reset();
  return true;
}

void RegionCommunicator::send(ConstByteSpan data, int destination, int tag, Deadline deadline) {
  check_peer(*this, destination, tag);
  const MessageHeader header{data.size(), tag, 0};
  if (destination == rank_) {
    inboxes_[rank_].complete.push_back({header, Bytes(data.begin(), data.end()), data.size()});
    return;
  }
  write_ring(destination, std::as_bytes(std::span(&header, 1)), deadline);
  write_ring(destination, data, deadline);
}

void RegionCommunicator::recv(ByteSpan data, int source, int tag, Deadline deadline) {
  check_peer(*this, source, tag);
  Inbox& inbox = inboxes_[source];
  size_t seen = 0;
  for (;;) {
    for (; seen < inbox.complete.size(); ++seen) {
      const Arrival& arrival = inbox.complete[seen];
      if (arrival.header.tag != tag) continue;
      check_message_size(arrival.data.size(), data.size(), source, tag);
      if (!data.empty()) std::memcpy(data.data(), arrival.data.data(), data.size());
      inbox.complete.erase(inbox.complete.begin() + static_cast<std::ptrdiff_t>(seen));
      return;
    }
    if (source == rank_)
      fail(ErrorCode::kDeadlineExceeded, "rank {} waits for a message (tag {}) that it did not send itself", rank_,
           tag);
    if (!inbox.partial) {
      MessageHeader header;
      read_ring(source, std::as_writable_bytes(std::span(&header, 1)), deadline);
      if (header.tag == tag) {
        check_message_size(header.size, data.size(), source, tag);
        read_ring(source, data, deadline);
        return;
      }
      inbox.partial = std::make_unique<Arrival>(Arrival{header, Bytes(header.size), 0});
    }
    // A message for another tag comes first: it waits in the inbox for its own recv.
    Arrival& arrival = *inbox.partial;
    read_ring(source, std::span(arrival.data).subspan(arrival.filled), deadline);
    inbox.complete.push_back(std::move(arrival));
    inbox.partial.reset();
  }
}

}  // namespace chorale::comm
