#include "worker/ids_link.h"

#include "comm/base/error.h"
#include "worker/layers/step.h"
#include "worker/ops/token_ids.h"

namespace chorale::worker {

IdsLink::IdsLink(comm::DeviceTransport& transport, OpContext& op, const DeviceStream& where, int64_t max_ids, int depth)
    : transport_(transport), op_(op), max_ids_(max_ids), stream_(where.device->make_stream()) {
  for (int i = 0; i < depth; ++i)
    laps_.push_back(
        {Tensor(*where.device, DType::kI32, {max_ids}), where.device->make_event(), where.device->make_event()});
  op_.stream->add_watch(transport_);
}

IdsLink::~IdsLink() { op_.stream->remove_watch(transport_); }

// The leader is the last of the transport's ranks.
void IdsLink::travel(Lap& lap, int64_t count, Deadline deadline) {
  CHECK(count >= 1 && count <= max_ids_);
  transport_.broadcast(std::as_writable_bytes(std::span(lap.ids.as<int32_t>(), static_cast<size_t>(count))),
                       transport_.size() - 1, *stream_, deadline);
}

int32_t* IdsLink::buffer() {
  op_.stream->wait(*current().is_free);  // what it held has left
  return current().ids.as<int32_t>();
}

void IdsLink::send(int64_t count, Deadline deadline) {
  Lap& lap = current();
  op_.stream->record(*lap.is_full);
  stream_->wait(*lap.is_full);
  travel(lap, count, deadline);
  stream_->record(*lap.is_free);
  next_ = (next_ + 1) % laps_.size();
}

void IdsLink::expect(uint64_t step, std::vector<int32_t> slots, int32_t* table, Deadline deadline) {
  if (expected_.size() == laps_.size()) keep(expected_.front().step, table);
  Lap& lap = current();
  stream_->wait(*lap.is_free);  // the table has what it held
  travel(lap, static_cast<int64_t>(slots.size()), deadline);
  stream_->record(*lap.is_full);
  expected_.push_back({step, next_, std::move(slots)});
  next_ = (next_ + 1) % laps_.size();
}

void IdsLink::keep(uint64_t step, int32_t* table) {
  while (!expected_.empty() && expected_.front().step <= step) {
    const Expected& front = expected_.front();
    Lap& lap = laps_[front.lap];
    const Workspace::Scope scope(op_.scratch);
    op_.stream->wait(*lap.is_full);
    keep_ids(op_, {.ids = lap.ids.as<int32_t>(),
                   .slots = place(op_, std::span<const int32_t>(front.slots)),
                   .count = static_cast<int64_t>(front.slots.size()),
                   .table = table});
    op_.stream->record(*lap.is_free);
    expected_.pop_front();
  }
}

}  // namespace chorale::worker
