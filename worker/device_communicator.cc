#include "worker/device_communicator.h"

#include <vector>

#include "comm/base/error.h"
#include "worker/ops/tree_fold.h"

namespace chorale::worker {
namespace {
using comm::ByteSpan;
using comm::ConstByteSpan;

class DeviceCommunicator : public comm::Communicator {
 public:
  DeviceCommunicator(comm::Communicator& host, comm::DeviceTransport& transport, OpContext& op, SumOrder order)
      : host_(host), transport_(transport), op_(op), order_(order) {
    CHECK_EQ(host.size(), transport.size());
    CHECK_EQ(host.rank(), transport.rank());
  }

  int rank() const override { return transport_.rank(); }
  int size() const override { return transport_.size(); }
  std::string backend() const override { return transport_.name(); }

  /// Messages between two ranks meet in their order; tags tell none apart.
  void send(ConstByteSpan data, int destination, int, Deadline deadline) override {
    transport_.send(data, destination, *op_.stream, deadline);
  }
  void recv(ByteSpan data, int source, int, Deadline deadline) override {
    transport_.recv(data, source, *op_.stream, deadline);
  }
  void barrier(Deadline deadline) override { host_.barrier(deadline); }
  void broadcast(ByteSpan data, int root, Deadline deadline) override {
    transport_.broadcast(data, root, *op_.stream, deadline);
  }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline deadline) override {
    transport_.all_gather(all, offsets, *op_.stream, deadline);
  }

  void tree_all_reduce(const comm::TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline deadline) override {
    if (order_ == SumOrder::kAny) return sum_in_any_order(schedule, partials, out, deadline);
    const Workspace::Scope scope(op_.scratch);
    fold(schedule, gather_nodes(schedule, partials, out.size(), deadline), out);
  }

  void tree_reduce_scatter(const comm::TreeSchedule& schedule, std::span<float> partials,
                           std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) override {
    const Workspace::Scope scope(op_.scratch);
    const size_t count = counts_begin.back(), begin = counts_begin[static_cast<size_t>(rank())];
    const std::span root(op_.scratch.take<float>(static_cast<int64_t>(count)), count);
    fold(schedule, gather_nodes(schedule, partials, count, deadline), root);
    op_.stream->copy(out.data(), root.data() + begin, out.size_bytes(), CopyKind::kDeviceToDevice);
  }

  std::unique_ptr<comm::Communicator> split(const std::vector<int>&, Deadline) override {
    fail(ErrorCode::kUnsupported, "a group over device memory is made of ranks of the world, not split");
  }

 private:
  // Every rank's nodes, in the schedule's order, in scratch of the device.
  const float* gather_nodes(const comm::TreeSchedule& schedule, std::span<const float> partials, size_t count,
                            Deadline deadline) {
    const size_t node_bytes = count * sizeof(float);
    std::vector<size_t> offsets;
    for (int first : schedule.first_node) offsets.push_back(static_cast<size_t>(first) * node_bytes);
    const ByteSpan nodes(static_cast<std::byte*>(op_.scratch.take_bytes(offsets.back())), offsets.back());
    const size_t begin = offsets[static_cast<size_t>(rank())], end = offsets[static_cast<size_t>(rank()) + 1];
    op_.stream->copy(nodes.data() + begin, partials.data(), end - begin, CopyKind::kDeviceToDevice);
    transport_.all_gather(nodes, offsets, *op_.stream, deadline);
    return reinterpret_cast<const float*>(nodes.data());
  }

  void fold(const comm::TreeSchedule& schedule, const float* nodes, std::span<float> out) {
    tree_fold(op_,
              {.schedule = &schedule, .nodes = nodes, .count = static_cast<int64_t>(out.size()), .out = out.data()});
  }

  void sum_in_any_order(const comm::TreeSchedule& schedule, std::span<const float> partials, std::span<float> out,
                        Deadline deadline) {
    const auto own = static_cast<size_t>(rank());
    const int num_nodes = schedule.first_node[own + 1] - schedule.first_node[own];
    comm::TreeSchedule chain{.nodes = std::vector<comm::LeafRange>(static_cast<size_t>(num_nodes)),
                             .first_node = {0, num_nodes},
                             .additions = {}};
    for (int node = 1; node < num_nodes; ++node) chain.additions.push_back({0, node});
    fold(chain, partials.data(), out);
    transport_.all_reduce_sum(out, *op_.stream, deadline);
  }

  comm::Communicator& host_;
  comm::DeviceTransport& transport_;
  OpContext& op_;
  const SumOrder order_;
};

}  // namespace

std::unique_ptr<comm::Communicator> make_device_communicator(comm::Communicator& host, comm::DeviceTransport& transport,
                                                             OpContext& op, SumOrder order) {
  return std::make_unique<DeviceCommunicator>(host, transport, op, order);
}

}  // namespace chorale::worker
