#include "worker/transport_warm_up.h"

#include <algorithm>
#include <set>

#include "comm/reduction_tree.h"
#include "worker/ops/logits.h"

namespace chorale::worker {
namespace {
using comm::ByteSpan;
using comm::DeviceTransport;

constexpr size_t kMiddleBytes = size_t{1} << 20;

/// Numbers of rows whose calls move one row, about 1 MiB, and all of `most`. Ascending, each once.
std::set<size_t> row_counts(size_t row_bytes, int64_t most) {
  const auto largest = static_cast<size_t>(most);
  return {1, std::clamp<size_t>(kMiddleBytes / row_bytes, 1, largest), largest};
}

/// Memory for calls that are done in turn, and the wait for their end.
class FirstCalls {
 public:
  FirstCalls(DeviceTransport& transport, Stream& stream, Workspace& memory, size_t num_bytes)
      : stream_(stream),
        transport_(transport),
        scope_(memory),
        memory_(static_cast<std::byte*>(memory.take_bytes(num_bytes))) {
    stream_.add_watch(transport_);
  }
  ~FirstCalls() { stream_.remove_watch(transport_); }
  FirstCalls(const FirstCalls&) = delete;
  FirstCalls& operator=(const FirstCalls&) = delete;

  ByteSpan bytes(size_t count) const { return {memory_, count}; }
  std::span<float> floats(size_t count) const { return {reinterpret_cast<float*>(memory_), count}; }
  void finish(Deadline deadline) { stream_.synchronize(deadline); }

 private:
  Stream& stream_;
  DeviceTransport& transport_;
  const Workspace::Scope scope_;
  std::byte* const memory_;
};

/// Where each rank's partial sums of `count` numbers begin, as the device communicator gathers them.
std::vector<size_t> gathered(const comm::TreeSchedule& schedule, size_t count) {
  std::vector<size_t> offsets;
  for (int first : schedule.first_node) offsets.push_back(static_cast<size_t>(first) * count * sizeof(float));
  return offsets;
}

}  // namespace

void warm_up_group(const parallel::ClusterPlan& plan, int rank, DeviceTransport& transport, Stream& stream,
                   Workspace& memory, Deadline deadline) {
  const parallel::Layout& layout = plan.layout;
  const auto hidden_size = static_cast<size_t>(plan.config.hidden_size);
  const bool is_fast = plan.numerics.answer == parallel::Answer::kFast;
  std::vector<comm::TreeSchedule> schedules;  // that differ in what their ranks gather
  for (const auto& runs : {layout.attention_leaves, layout.mlp_leaves}) {
    comm::TreeSchedule schedule = comm::make_tree_schedule(runs.back().end, runs);
    if (schedules.empty() || schedules.front().first_node != schedule.first_node)
      schedules.push_back(std::move(schedule));
  }
  size_t num_nodes = 1;
  for (const comm::TreeSchedule& schedule : schedules)
    num_nodes = std::max(num_nodes, static_cast<size_t>(schedule.first_node.back()));
  const size_t row_bytes = (is_fast ? 1 : num_nodes) * hidden_size * sizeof(float);

  int64_t widest_slice = 1;
  for (const parallel::Range& slice : layout.vocab_rows) widest_slice = std::max(widest_slice, slice.size());
  const size_t slice_bytes = static_cast<size_t>(widest_slice) * sizeof(float);
  const int64_t slab_rows = std::min<int64_t>(kSlabRows, plan.max_num_batched_tokens);
  FirstCalls calls(transport, stream, memory,
                   std::max(row_bytes * static_cast<size_t>(plan.max_num_batched_tokens),
                            slice_bytes * static_cast<size_t>(slab_rows)));

  for (const size_t rows : row_counts(row_bytes, plan.max_num_batched_tokens)) {
    const size_t count = rows * hidden_size;
    if (is_fast) {
      transport.all_reduce_sum(calls.floats(count), stream, deadline);
      continue;
    }
    for (const comm::TreeSchedule& schedule : schedules) {
      const std::vector<size_t> offsets = gathered(schedule, count);
      transport.all_gather(calls.bytes(offsets.back()), offsets, stream, deadline);
    }
  }
  if (layout.is_last_stage(rank)) {
    for (const size_t rows : row_counts(slice_bytes, slab_rows))
      for (int tp = 1; tp < layout.tp; ++tp) {
        const size_t bytes = rows * static_cast<size_t>(layout.vocab_rows[tp].size()) * sizeof(float);
        if (bytes == 0) continue;
        if (transport.rank() == 0) transport.recv(calls.bytes(bytes), tp, stream, deadline);
        if (transport.rank() == tp) transport.send(calls.bytes(bytes), 0, stream, deadline);
      }
    if (layout.pp == 1)
      for (const int64_t rows : std::set<int64_t>{1, slab_rows})
        transport.broadcast(calls.bytes(static_cast<size_t>(rows) * sizeof(int32_t)), 0, stream, deadline);
  }
  calls.finish(deadline);
}

void warm_up_link(const parallel::ClusterPlan& plan, DeviceTransport& transport, Stream& stream, Workspace& memory,
                  Deadline deadline) {
  const size_t row_bytes = static_cast<size_t>(plan.config.hidden_size) * sizeof(float);
  FirstCalls calls(transport, stream, memory, row_bytes * static_cast<size_t>(plan.max_num_batched_tokens));
  for (const size_t rows : row_counts(row_bytes, plan.max_num_batched_tokens)) {
    if (transport.rank() == 0) transport.send(calls.bytes(rows * row_bytes), 1, stream, deadline);
    if (transport.rank() == 1) transport.recv(calls.bytes(rows * row_bytes), 0, stream, deadline);
  }
  calls.finish(deadline);
}

void warm_up_ids(const parallel::ClusterPlan& plan, DeviceTransport& transport, Stream& stream, Workspace& memory,
                 Deadline deadline) {
  FirstCalls calls(transport, stream, memory, static_cast<size_t>(plan.max_num_seqs) * sizeof(int32_t));
  for (const size_t count : row_counts(sizeof(int32_t), plan.max_num_seqs))
    transport.broadcast(calls.bytes(count * sizeof(int32_t)), transport.size() - 1, stream, deadline);
  calls.finish(deadline);
}

}  // namespace chorale::worker
