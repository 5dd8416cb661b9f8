// The group of one: what a tensor-parallel group, a stage or a world is on one rank.

#include <cstring>
#include <deque>

#include "comm/backends/checks.h"
#include "comm/base/bytes.h"
#include "comm/base/error.h"
#include "comm/communicator.h"
#include "comm/tree_sum.h"

namespace chorale::comm {
namespace {

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string backend() const override { return "single"; }

  void send(ConstByteSpan data, int destination, int tag, Deadline deadline) override {
    CHECK_EQ(destination, 0);
    messages_.push_back({tag, Bytes(data.begin(), data.end())});
  }

  void recv(ByteSpan data, int source, int tag, Deadline deadline) override {
    CHECK_EQ(source, 0);
    for (auto message = messages_.begin(); message != messages_.end(); ++message) {
      if (message->tag != tag) continue;
      check_message_size(message->data.size(), data.size(), source, tag);
      if (!data.empty()) std::memcpy(data.data(), message->data.data(), data.size());
      messages_.erase(message);
      return;
    }
    fail(ErrorCode::kDeadlineExceeded, "the only rank waits for a message (tag {}) that it did not send", tag);
  }

  void barrier(Deadline) override {}
  void broadcast(ByteSpan, int root, Deadline) override { CHECK_EQ(root, 0); }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline) override {
    check_offsets(offsets, 1, all.size());
  }

  void tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline) override {
    check_partials(schedule, *this, partials.size(), out.size());
    std::vector<const float*> nodes;
    for (size_t k = 0; k < schedule.nodes.size(); ++k) nodes.push_back(partials.data() + k * out.size());
    tree_sum(schedule, nodes, out.size(), out.data());
  }

  void tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials,
                           std::span<const size_t> counts_begin, std::span<float> out, Deadline deadline) override {
    check_offsets(counts_begin, 1, out.size());
    tree_all_reduce(schedule, partials, out, deadline);
  }

  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline) override {
    check_members(members, *this);
    return make_single();
  }

 private:
  struct Message {
    int tag;
    Bytes data;
  };
  std::deque<Message> messages_;
};

}  // namespace

std::unique_ptr<Communicator> make_single() { return std::make_unique<SingleCommunicator>(); }

}  // namespace chorale::comm
