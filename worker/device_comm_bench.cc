#include "worker/device_comm_bench.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "comm/base/error.h"
#include "comm/base/stuck_device.h"
#include "comm/base/watchdog.h"
#include "worker/device_groups.h"
#include "worker/hidden_link.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {
using comm::CommBenchRow;
using Operation = std::function<void()>;

constexpr int kMostRanks = 16;                         // as many as leaves (N2)
constexpr std::chrono::minutes kTransportDeadline{5};  // NCCL's first contact may take minutes

std::vector<int> all_ranks(int size) {
  std::vector<int> ranks;
  for (int r = 0; r < size; ++r) ranks.push_back(r);
  return ranks;
}

/// All ranks are one stage. It connects while the bench warms up, at the sizes that are measured.
StageTransports group_transport(comm::Communicator& world, const DeviceStream& where, parallel::DeviceComm comm) {
  StageTransports transports;
  if (comm == parallel::DeviceComm::kNccl)
    transports.group = make_stage_transport(world, all_ranks(world.size()), "stage 0", TransportUse::kGroup, where,
                                            Deadline::after(kTransportDeadline));
  return transports;
}

size_t scratch_bytes(int num_ranks, const comm::CommBenchOptions& options) {
  constexpr size_t kRounding = size_t{1} << 12;
  const size_t num_nodes = comm::BenchSum(num_ranks, 1).schedule().nodes.size();
  return num_nodes * *std::ranges::max_element(options.sizes) + kRounding;
}

/// Memory of the device, in values.
class Values {
 public:
  Values(const DeviceStream& where, size_t count)
      : stream_(*where.stream), memory_(*where.device, DType::kF32, {static_cast<int64_t>(count)}), count_(count) {}
  std::span<float> span() const { return {memory_.as<float>(), count_}; }
  comm::ByteSpan bytes() const { return std::as_writable_bytes(span()); }
  MatrixView row() const { return {memory_}; }
  void clear() { stream_.fill_zero(memory_.as<float>(), bytes().size()); }
  void put(std::span<const float> values, size_t at = 0) {
    stream_.copy(memory_.as<float>() + at, values.data(), values.size_bytes(), CopyKind::kHostToDevice);
  }

 private:
  Stream& stream_;
  mutable Tensor memory_;
  size_t count_;
};

class DeviceCommBench {
 public:
  DeviceCommBench(comm::Communicator& world, const DeviceStream& where, const DeviceCommBenchOptions& options)
      : world_(world),
        where_(where),
        options_(options),
        host_group_(world.split(all_ranks(world.size()), deadline())),
        scratch_(where.device, scratch_bytes(world.size(), options.rounds)),
        groups_(*host_group_, group_transport(world, where, options.comm), parallel::Answer::kOne, where, op_),
        backend_(fmt::format("{}/{}", to_string(where.kind()), over_nccl() ? "nccl" : world.backend())) {}

  std::vector<CommBenchRow> run() {
    for (const size_t bytes : options_.rounds.sizes) measure_all_reduce(bytes);
    for (const size_t bytes : options_.rounds.sizes) measure_all_gather(bytes);
    measure_send_recv();
    return std::move(rows_);
  }

 private:
  bool over_nccl() const { return groups_.transports.group != nullptr; }
  Deadline deadline() const { return Deadline::after(options_.deadline); }

  /// Does `work` and waits for the device. What is half done when a peer fails would be waited for by its owners: the
  /// process leaves before they are.
  void perform(const Operation& work) const {
    try {
      work();
      where_.stream->synchronize(deadline());
    } catch (const Error& error) {
      const bool lacks_peers = error.code() == ErrorCode::kPeerLost || error.code() == ErrorCode::kDeadlineExceeded;
      if (lacks_peers || is_device_stuck()) leave_lost_world(fmt::format("rank {}: {}", world_.rank(), error.what()));
      throw;
    }
  }

  std::vector<float> fetch(const Values& values) const {
    std::vector<float> copy(values.span().size());
    perform([&] {
      where_.stream->copy(copy.data(), values.span().data(), copy.size() * sizeof(float), CopyKind::kDeviceToHost);
    });
    return copy;
  }

  /// Collective: a row of the times of `operation` over `parts`. The ranks meet in one that does not count.
  void measure(const std::string& test, size_t bytes, double bus_factor, const Operation& operation, int parts = 1) {
    const auto round = [&](int count) {
      while (events_.size() <= static_cast<size_t>(count))
        events_.push_back(where_.device->make_event(EventTiming::kOn));
      perform([&] {
        operation();
        where_.stream->record(*events_[0]);
        for (int i = 1; i <= count; ++i) {
          operation();
          where_.stream->record(*events_[static_cast<size_t>(i)]);
        }
      });
      std::vector<double> times;
      for (size_t i = 1; i <= static_cast<size_t>(count); ++i)
        times.push_back(std::chrono::duration<double, std::micro>(events_[i]->since(*events_[i - 1])).count() / parts);
      return times;
    };
    std::vector<double> times = comm::run_rounds(*host_group_, options_.rounds, bytes, round);
    if (world_.rank() != 0) return;
    rows_.push_back(comm::summarise(
        std::move(times), {.test = test, .backend = backend_, .ranks = world_.size(), .bytes = bytes}, bus_factor));
  }

  std::string what(std::string_view test, size_t bytes) const {
    return fmt::format("{} over {} of {} bytes", test, backend_, bytes);
  }

  /// `operation` in a row, as decode steps have it.
  std::unique_ptr<Graph> capture(const Operation& operation) const {
    try {
      return where_.stream->capture([&] {
        for (int i = 0; i < kBenchGraphOps; ++i) operation();
      });
    } catch (const Error& error) {
      fail(error.code(), "all-reduces could not be captured as a CUDA graph (--no-cuda-graphs goes without): {}",
           error.what());
    }
  }

  void measure_all_reduce(size_t bytes) {
    const size_t count = bytes / sizeof(float);
    const comm::BenchSum sum(world_.size(), count);
    const double bus_factor = comm::all_reduce_bus_factor(world_.size());
    const std::vector<float> own = sum.partials(world_.rank());
    Values partials(where_, own.size()), root(where_, count);
    perform([&] { partials.put(own); });
    const Operation ours = [&] {
      groups_.group.tree_all_reduce(sum.schedule(), partials.span(), root.span(), deadline());
    };
    const auto measure_ours = [&](const std::string& test, const Operation& operation, int parts) {
      measure(test, bytes, bus_factor, operation, parts);
      perform([&] {
        root.clear();
        operation();
      });
      sum.check_root(fetch(root), what(test, bytes));
    };
    measure_ours("all_reduce", ours, 1);
    if (!over_nccl()) return;

    const Operation plain = [&] { groups_.transports.group->all_reduce_sum(root.span(), *where_.stream, deadline()); };
    const std::vector<float> values = sum.values(world_.rank());
    const auto measure_plain = [&](const std::string& test, const Operation& operation, int parts) {
      perform([&] { root.clear(); });  // in place, again and again: other values would grow beyond all bounds
      measure(test, bytes, bus_factor, operation, parts);
      perform([&] {
        root.put(values);
        operation();
      });
      sum.check_any_order(fetch(root), parts, what(test, bytes));
    };
    measure_plain("nccl_all_reduce", plain, 1);
    if (options_.graphs == parallel::CudaGraphs::kOff) return;
    for (const bool is_ours : {true, false}) {
      const std::unique_ptr<Graph> graph = capture(is_ours ? ours : plain);
      const Operation replay = [&] { graph->launch(*where_.stream); };
      if (is_ours)
        measure_ours("all_reduce_graph", replay, kBenchGraphOps);
      else
        measure_plain("nccl_all_reduce_graph", replay, kBenchGraphOps);
    }
  }

  void measure_all_gather(size_t bytes) {
    const size_t count = bytes / sizeof(float), num_ranks = static_cast<size_t>(world_.size());
    const std::vector<float> whole = comm::BenchSum(world_.size(), count).values(0);
    std::vector<size_t> begin, offsets;
    for (size_t r = 0; r <= num_ranks; ++r) {
      begin.push_back(count * r / num_ranks);
      offsets.push_back(begin.back() * sizeof(float));
    }
    const auto rank = static_cast<size_t>(world_.rank());
    const std::span own = std::span(whole).subspan(begin[rank], begin[rank + 1] - begin[rank]);
    Values all(where_, count);
    const Operation gather = [&] { groups_.group.all_gather(all.bytes(), offsets, deadline()); };
    measure("all_gather", bytes, 1 - 1.0 / world_.size(), gather);
    perform([&] {
      all.clear();
      all.put(own, begin[rank]);
      gather();
    });
    check_equal(fetch(all), whole, what("all_gather", bytes));
  }

  /// The first stage and the last are next to each other, in a ring: rank 0 and the last rank have a link with both
  /// directions, as a stage in the middle has.
  void measure_send_recv() {
    const int last = world_.size() - 1;
    const bool is_first = world_.rank() == 0, is_last = world_.rank() == last;
    StageTransports transports;
    if (over_nccl() && (is_first || is_last)) {
      const Deadline until = Deadline::after(kTransportDeadline);
      auto there = make_stage_transport(world_, {0, last}, "stage 0 to 1", TransportUse::kLink, where_, until);
      auto back = make_stage_transport(world_, {last, 0}, "stage 1 to 0", TransportUse::kLink, where_, until);
      transports.previous = std::move(is_first ? back : there);
      transports.next = std::move(is_first ? there : back);
    }
    host_group_->barrier(Deadline::after(kTransportDeadline));  // those between wait for the two
    const int peer = is_first ? last : 0;
    const HiddenEnds ends{
        .previous = peer, .next = peer, .most_bytes = *std::ranges::max_element(options_.rounds.sizes)};
    const auto link = make_hidden_link(ends, world_, transports, where_);
    for (const size_t bytes : options_.rounds.sizes) {
      const size_t count = bytes / sizeof(float);
      const std::vector<float> rows = comm::BenchSum(world_.size(), count).values(0);
      Values sent(where_, count), received(where_, count);
      if (is_first) perform([&] { sent.put(rows); });
      const Operation round_trip = [&] {
        if (is_first) {
          link->send(sent.row(), deadline());
          link->receive(received.row(), deadline());
        } else if (is_last) {
          link->receive(received.row(), deadline());
          link->send(received.row(), deadline());
        }
      };
      measure("send_recv", bytes, 1, round_trip, 2);
      perform([&] {
        received.clear();
        round_trip();
      });
      if (is_first || is_last) check_equal(fetch(received), rows, what("send_recv", bytes));
    }
  }

  static void check_equal(const std::vector<float>& got, const std::vector<float>& wanted, const std::string& what) {
    const auto [at, expected] = std::ranges::mismatch(got, wanted);
    if (at != got.end())
      fail(ErrorCode::kCorrupt, "{} gave {:.9g} at {} instead of {:.9g}", what, *at, at - got.begin(), *expected);
  }

  comm::Communicator& world_;  // for memory of the host
  const DeviceStream where_;
  const DeviceCommBenchOptions options_;
  const std::unique_ptr<comm::Communicator> host_group_;
  ThreadPool pool_{{.num_threads = 1, .spin_us = 0}};
  Workspace scratch_;
  OpContext op_{.device = where_.kind(), .pool = pool_, .scratch = scratch_, .stream = where_.stream};
  DeviceGroups groups_;
  const std::string backend_;
  std::vector<std::unique_ptr<Event>> events_;
  std::vector<CommBenchRow> rows_;
};

}  // namespace

std::vector<CommBenchRow> measure_device_comm(comm::Communicator& world, const DeviceStream& where,
                                              const DeviceCommBenchOptions& options) {
  CHECK_GE(world.size(), 2);
  if (world.size() > kMostRanks)
    fail(ErrorCode::kInvalidArgument, "{} ranks: no group of a world has more than {}, the leaves of a model",
         world.size(), kMostRanks);
  return DeviceCommBench(world, where, options).run();
}

}  // namespace chorale::worker
