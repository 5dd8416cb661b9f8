#include "worker/device_communicator.h"

#include <algorithm>
#include <vector>

#include "comm/base/error.h"
#include "worker/ops/tree_fold.h"

namespace chorale::worker {
namespace {
using comm::ByteSpan;
using comm::ConstByteSpan;

class DeviceCommunicator : public comm::Communicator {
 public:
  DeviceCommunicator(comm::Communicator& host, Device& device, OpContext& op) : host_(host), device_(device), op_(op) {}
  DeviceCommunicator(std::unique_ptr<comm::Communicator> host, Device& device, OpContext& op)
      : DeviceCommunicator(*host, device, op) {
    owned_ = std::move(host);
  }

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string backend() const override { return host_.backend() + ", staged"; }

  void send(ConstByteSpan data, int destination, int tag, Deadline deadline) override {
    host_.send(fetch(data, deadline), destination, tag, deadline);
  }
  void recv(ByteSpan data, int source, int tag, Deadline deadline) override {
    const ByteSpan stage = staging(data.size(), deadline);
    host_.recv(stage, source, tag, deadline);
    put(data, stage);
  }
  void barrier(Deadline deadline) override { host_.barrier(deadline); }
  void broadcast(ByteSpan data, int root, Deadline deadline) override {
    const ByteSpan stage = rank() == root ? fetch(data, deadline) : staging(data.size(), deadline);
    host_.broadcast(stage, root, deadline);
    if (rank() != root) put(data, stage);
  }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) override {
    const ByteSpan stage = staging(all.size(), deadline);
    const size_t begin = offsets[static_cast<size_t>(rank())], end = offsets[static_cast<size_t>(rank()) + 1];
    op_.stream->copy(stage.data() + begin, all.data() + begin, end - begin, CopyKind::kDeviceToHost);
    op_.stream->synchronize(deadline);
    host_.all_gather(stage, offsets, deadline);
    put(all, stage);
  }

  void tree_all_reduce(const comm::TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline deadline) override {
    const Workspace::Scope scope(op_.scratch);
    const float* nodes = gather_nodes(schedule, partials, out.size(), deadline);
    tree_fold(op_,
              {.schedule = &schedule, .nodes = nodes, .count = static_cast<int64_t>(out.size()), .out = out.data()});
  }

  void tree_reduce_scatter(const comm::TreeSchedule& schedule, std::span<float> partials,
                           std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) override {
    const Workspace::Scope scope(op_.scratch);
    const size_t count = counts_begin.back(), begin = counts_begin[static_cast<size_t>(rank())];
    const float* nodes = gather_nodes(schedule, partials, count, deadline);
    auto* root = op_.scratch.take<float>(static_cast<int64_t>(count));
    tree_fold(op_, {.schedule = &schedule, .nodes = nodes, .count = static_cast<int64_t>(count), .out = root});
    op_.stream->copy(out.data(), root + begin, out.size_bytes(), CopyKind::kDeviceToDevice);
  }

  std::unique_ptr<comm::Communicator> split(const std::vector<int>& members, Deadline deadline) override {
    return std::make_unique<DeviceCommunicator>(host_.split(members, deadline), device_, op_);
  }

 private:
  // Every rank's nodes, in the schedule's order, in scratch of the device.
  const float* gather_nodes(const comm::TreeSchedule& schedule, std::span<const float> partials, size_t count,
                            Deadline deadline) {
    const size_t node_bytes = count * sizeof(float);
    std::vector<size_t> offsets;
    for (int first : schedule.first_node) offsets.push_back(static_cast<size_t>(first) * node_bytes);
    auto* nodes = static_cast<std::byte*>(op_.scratch.take_bytes(offsets.back()));
    const size_t begin = offsets[static_cast<size_t>(rank())], end = offsets[static_cast<size_t>(rank()) + 1];
    const ByteSpan stage = staging(offsets.back(), deadline);
    op_.stream->copy(stage.data() + begin, partials.data(), end - begin, CopyKind::kDeviceToHost);
    op_.stream->synchronize(deadline);
    host_.all_gather(stage, offsets, deadline);
    op_.stream->copy(nodes, stage.data(), stage.size(), CopyKind::kHostToDevice);
    return reinterpret_cast<const float*>(nodes);
  }

  // The pinned buffer. Copies out of it may still be under way: they end first.
  ByteSpan staging(size_t bytes, Deadline deadline) {
    op_.stream->synchronize(deadline);
    if (staging_.size_bytes() < bytes) staging_ = PinnedBuffer(device_, std::max(bytes, 2 * staging_.size_bytes()));
    return {staging_.data(), bytes};
  }
  ByteSpan fetch(ConstByteSpan data, Deadline deadline) {
    const ByteSpan stage = staging(data.size(), deadline);
    op_.stream->copy(stage.data(), data.data(), data.size(), CopyKind::kDeviceToHost);
    op_.stream->synchronize(deadline);
    return stage;
  }
  void put(ByteSpan data, ConstByteSpan stage) {
    op_.stream->copy(data.data(), stage.data(), data.size(), CopyKind::kHostToDevice);
  }

  std::unique_ptr<comm::Communicator> owned_;
  comm::Communicator& host_;
  Device& device_;
  OpContext& op_;
  PinnedBuffer staging_;
};

}  // namespace

std::unique_ptr<comm::Communicator> make_device_communicator(comm::Communicator& host, Device& device, OpContext& op) {
  return std::make_unique<DeviceCommunicator>(host, device, op);
}

}  // namespace chorale::worker
