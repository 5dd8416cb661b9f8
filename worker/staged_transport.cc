#include "worker/staged_transport.h"

#include <algorithm>

#include "comm/base/error.h"

namespace chorale::worker {
namespace {
using comm::ByteSpan;
using comm::ConstByteSpan;

constexpr int kTag = 4;  // pairs of ranks meet in one order

class StagedTransport : public comm::DeviceTransport {
 public:
  StagedTransport(comm::Communicator& host, Device& device) : host_(host), device_(device) {}

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string name() const override { return host_.backend() + ", staged"; }

  void send(ConstByteSpan data, int destination, Stream& stream, Deadline deadline) override {
    host_.send(fetch(data, stream, deadline), destination, kTag, deadline);
  }
  void recv(ByteSpan data, int source, Stream& stream, Deadline deadline) override {
    const ByteSpan stage = staging(data.size(), stream, deadline);
    host_.recv(stage, source, kTag, deadline);
    put(data, stage, stream);
  }
  void broadcast(ByteSpan data, int root, Stream& stream, Deadline deadline) override {
    const ByteSpan stage = rank() == root ? fetch(data, stream, deadline) : staging(data.size(), stream, deadline);
    host_.broadcast(stage, root, deadline);
    if (rank() != root) put(data, stage, stream);
  }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Stream& stream, Deadline deadline) override {
    const ByteSpan stage = staging(all.size(), stream, deadline);
    const size_t begin = offsets[static_cast<size_t>(rank())], end = offsets[static_cast<size_t>(rank()) + 1];
    stream.copy(stage.data() + begin, all.data() + begin, end - begin, CopyKind::kDeviceToHost);
    stream.synchronize(deadline);
    host_.all_gather(stage, offsets, deadline);
    put(all, stage, stream);
  }
  void all_reduce_sum(std::span<float>, Stream&, Deadline) override {
    fail(ErrorCode::kUnsupported, "sums by way of the host are the tree's: there is none in any order");
  }
  void renew(Deadline) override {}  // no graph holds its work

  void check() override {}
  std::string waiting_for() const override { return {}; }

 private:
  // The pinned buffer. Copies out of it may still be under way: they end first.
  ByteSpan staging(size_t bytes, Stream& stream, Deadline deadline) {
    stream.synchronize(deadline);
    if (staging_.size_bytes() < bytes) staging_ = PinnedBuffer(device_, std::max(bytes, 2 * staging_.size_bytes()));
    return {staging_.data(), bytes};
  }
  ByteSpan fetch(ConstByteSpan data, Stream& stream, Deadline deadline) {
    const ByteSpan stage = staging(data.size(), stream, deadline);
    stream.copy(stage.data(), data.data(), data.size(), CopyKind::kDeviceToHost);
    stream.synchronize(deadline);
    return stage;
  }
  static void put(ByteSpan data, ConstByteSpan stage, Stream& stream) {
    stream.copy(data.data(), stage.data(), data.size(), CopyKind::kHostToDevice);
  }

  comm::Communicator& host_;
  Device& device_;
  PinnedBuffer staging_;
};

}  // namespace

std::unique_ptr<comm::DeviceTransport> make_staged_transport(comm::Communicator& host, Device& device) {
  return std::make_unique<StagedTransport>(host, device);
}

}  // namespace chorale::worker
