#include "worker/hidden_link.h"

#include <array>

#include "comm/base/error.h"
#include "worker/sampled_tokens.h"
#include "worker/staged_transport.h"

namespace chorale::worker {
namespace {

comm::ByteSpan bytes_of(MatrixView matrix) {
  CHECK_EQ(matrix.row_stride, matrix.cols);
  return {static_cast<std::byte*>(matrix.data), static_cast<size_t>(matrix.rows * matrix.cols) * size_of(matrix.dtype)};
}

/// Memory of the host.
class HostLink : public HiddenLink {
 public:
  HostLink(comm::Communicator& world, int previous, int next) : world_(world), previous_(previous), next_(next) {}
  void receive(MatrixView hidden, Deadline deadline) override {
    world_.recv(bytes_of(hidden), previous_, kHiddenTag, deadline);
  }
  void send(MatrixView hidden, Deadline deadline) override {
    world_.send(bytes_of(hidden), next_, kHiddenTag, deadline);
  }

 private:
  comm::Communicator& world_;
  const int previous_, next_;
};

/// Memory of a device, by way of the host.
class StagedLink : public HiddenLink {
 public:
  StagedLink(comm::Communicator& world, int previous, int next, const DeviceStream& where)
      : where_(where), transport_(make_staged_transport(world, *where.device)), previous_(previous), next_(next) {}
  void receive(MatrixView hidden, Deadline deadline) override {
    transport_->recv(bytes_of(hidden), previous_, *where_.stream, deadline);
  }
  void send(MatrixView hidden, Deadline deadline) override {
    transport_->send(bytes_of(hidden), next_, *where_.stream, deadline);
  }

 private:
  const DeviceStream where_;
  const std::unique_ptr<comm::DeviceTransport> transport_;
  const int previous_, next_;
};

/// One direction over a transport: two buffers in turn, and a stream in which they travel.
class Lane {
 public:
  Lane(comm::DeviceTransport& transport, int peer, const DeviceStream& where, size_t num_bytes)
      : transport_(transport), peer_(peer), compute_(*where.stream), stream_(where.device->make_stream()) {
    for (Slot& slot : slots_)
      slot = {Tensor(*where.device, DType::kU8, {static_cast<int64_t>(num_bytes)}), where.device->make_event(),
              where.device->make_event()};
    compute_.add_watch(transport_);
  }
  ~Lane() { compute_.remove_watch(transport_); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  void receive(comm::ByteSpan data, Deadline deadline) {
    Slot& slot = next_slot(data.size());
    stream_->wait(*slot.is_free);  // the layers have taken what it held
    transport_.recv(slot.bytes(data.size()), peer_, *stream_, deadline);
    stream_->record(*slot.is_full);
    compute_.wait(*slot.is_full);
    compute_.copy(data.data(), slot.bytes(data.size()).data(), data.size(), CopyKind::kDeviceToDevice);
    compute_.record(*slot.is_free);
  }
  void send(comm::ConstByteSpan data, Deadline deadline) {
    Slot& slot = next_slot(data.size());
    compute_.wait(*slot.is_free);  // what it held has left
    compute_.copy(slot.bytes(data.size()).data(), data.data(), data.size(), CopyKind::kDeviceToDevice);
    compute_.record(*slot.is_full);
    stream_->wait(*slot.is_full);
    transport_.send(slot.bytes(data.size()), peer_, *stream_, deadline);
    stream_->record(*slot.is_free);
  }

 private:
  struct Slot {
    Tensor memory;
    std::unique_ptr<Event> is_full, is_free;
    comm::ByteSpan bytes(size_t count) { return {static_cast<std::byte*>(memory.view().data), count}; }
  };
  Slot& next_slot(size_t num_bytes) {
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % slots_.size();
    CHECK_LE(num_bytes, slot.memory.view().size_bytes());
    return slot;
  }

  comm::DeviceTransport& transport_;
  const int peer_;
  Stream& compute_;
  std::array<Slot, 2> slots_;
  size_t next_ = 0;
  const std::unique_ptr<Stream> stream_;  // goes before the memory that it works on
};

class TransportLink : public HiddenLink {
 public:
  TransportLink(const StageTransports& transports, const DeviceStream& where, size_t num_bytes) {
    if (transports.previous) previous_ = std::make_unique<Lane>(*transports.previous, 0, where, num_bytes);
    if (transports.next) next_ = std::make_unique<Lane>(*transports.next, 1, where, num_bytes);
  }
  void receive(MatrixView hidden, Deadline deadline) override { previous_->receive(bytes_of(hidden), deadline); }
  void send(MatrixView hidden, Deadline deadline) override { next_->send(bytes_of(hidden), deadline); }

 private:
  std::unique_ptr<Lane> previous_, next_;
};

}  // namespace

HiddenEnds hidden_ends(const parallel::ClusterPlan& plan, int rank) {
  return {.previous = rank - plan.layout.tp,
          .next = rank + plan.layout.tp,
          .most_bytes = static_cast<size_t>(plan.max_num_batched_tokens) *
                        static_cast<size_t>(plan.config.hidden_size) * sizeof(float)};
}

std::unique_ptr<HiddenLink> make_hidden_link(const HiddenEnds& ends, comm::Communicator& world,
                                             const StageTransports& transports, const DeviceStream& where) {
  if (!where) return std::make_unique<HostLink>(world, ends.previous, ends.next);
  if (!transports.previous && !transports.next)
    return std::make_unique<StagedLink>(world, ends.previous, ends.next, where);
  return std::make_unique<TransportLink>(transports, where, ends.most_bytes);
}

}  // namespace chorale::worker
