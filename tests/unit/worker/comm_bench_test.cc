// The bench of communication, with ranks as threads: what it measures on the emulator over NCCL (the build's stand-in)
// and by way of the host, that it finds wrong results, and what ranks refuse together.
#include "worker/comm_bench.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <thread>

#include "comm/base/error.h"
#include "comm/cuda/nccl_library.h"

namespace chorale::worker {
namespace {

using comm::ByteSpan;
using comm::CommBenchRow;
using comm::ConstByteSpan;
using parallel::DeviceComm;

// Before anybody looks for the library: that is done once.
const bool kIsSet = setenv("CHORALE_NCCL_PATH", CHORALE_FAKE_LIBRARIES "/libfake_nccl.so", 1) == 0;

/// Hands all on to the threads' communicator, and what it gathers or receives through `spoil`.
class Spoiled : public comm::Communicator {
 public:
  using Spoil = std::function<void(ByteSpan)>;
  Spoiled(std::unique_ptr<Communicator> right, Spoil gathered, Spoil received)
      : right_(std::move(right)), gathered_(std::move(gathered)), received_(std::move(received)) {}
  int rank() const override { return right_->rank(); }
  int size() const override { return right_->size(); }
  std::string backend() const override { return right_->backend(); }
  void send(ConstByteSpan data, int to, int tag, Deadline until) override { right_->send(data, to, tag, until); }
  void recv(ByteSpan data, int from, int tag, Deadline until) override {
    right_->recv(data, from, tag, until);
    if (received_) received_(data);
  }
  void barrier(Deadline until) override { right_->barrier(until); }
  void broadcast(ByteSpan data, int root, Deadline until) override { right_->broadcast(data, root, until); }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline until) override {
    right_->all_gather(all, offsets, until);
    if (gathered_) gathered_(all);
  }
  void tree_all_reduce(const comm::TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline until) override {
    right_->tree_all_reduce(schedule, partials, out, until);
  }
  void tree_reduce_scatter(const comm::TreeSchedule& schedule, std::span<float> partials, std::span<const size_t> begin,
                           std::span<float> out, Deadline until) override {
    right_->tree_reduce_scatter(schedule, partials, begin, out, until);
  }
  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline until) override {
    return std::make_unique<Spoiled>(right_->split(members, until), gathered_, received_);
  }

 private:
  const std::unique_ptr<Communicator> right_;
  const Spoil gathered_, received_;
};

struct Outcome {
  std::vector<CommBenchRow> rows;
  std::string error;
  std::optional<ErrorCode> code;
};

/// What each of `size` ranks got; `start_of` and `spoil` say how a rank differs from others.
std::vector<Outcome> bench(int size, const std::function<CommBenchStart(int rank)>& start_of,
                           const Spoiled::Spoil& gathered = nullptr, const Spoiled::Spoil& received = nullptr) {
  auto worlds = comm::make_threads(size);
  std::vector<Outcome> outcomes(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      Outcome& outcome = outcomes[static_cast<size_t>(rank)];
      const comm::WorldMap map{.rank = rank, .size = size, .host_name = "here", .host_of = std::vector<int>(size, 0)};
      try {
        outcome.rows = bench_comm(start_of(rank), map, [&](const comm::WorldOptions&) {
          return std::make_unique<Spoiled>(std::move(worlds[static_cast<size_t>(rank)]), gathered, received);
        });
      } catch (const Error& error) {
        outcome.error = error.what();
        outcome.code = error.code();
      }
    });
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

CommBenchStart start_on(DeviceKind device, std::optional<DeviceComm> comm) {
  return {.device = device,
          .comm = comm,
          .rounds = {.sizes = {4, 3000}, .warmup = 1, .iterations = 3, .seconds_per_size = 1}};
}

std::vector<std::string> names_of(const std::vector<CommBenchRow>& rows) {
  std::vector<std::string> names;
  for (const CommBenchRow& row : rows) names.push_back(fmt::format("{} {} {}", row.test, row.backend, row.bytes));
  return names;
}

TEST(CommBenchOnDevices, MeasuresWhatServesOverNccl) {
  ASSERT_TRUE(kIsSet && find_nccl()) << "the stand-in was not found";
  for (const int size : {2, 3, 4}) {
    SCOPED_TRACE(size);
    for (const auto graphs : {parallel::CudaGraphs::kOn, parallel::CudaGraphs::kOff}) {
      const std::vector<Outcome> outcomes = bench(size, [&](int) {
        CommBenchStart start = start_on(DeviceKind::kEmulator, std::nullopt);
        start.graphs = graphs;
        return start;
      });
      std::vector<std::string> wanted;
      for (const int bytes : {4, 3000})
        for (const char* test : {"all_reduce", "nccl_all_reduce", "all_reduce_graph", "nccl_all_reduce_graph"})
          if (graphs == parallel::CudaGraphs::kOn || std::string_view(test).find("graph") == std::string_view::npos)
            wanted.push_back(fmt::format("{} emulator/nccl {}", test, bytes));
      for (const char* test : {"all_gather", "send_recv"})
        for (const int bytes : {4, 3000}) wanted.push_back(fmt::format("{} emulator/nccl {}", test, bytes));
      EXPECT_EQ(names_of(outcomes[0].rows), wanted) << outcomes[0].error;
      for (const CommBenchRow& row : outcomes[0].rows) {
        EXPECT_EQ(row.ranks, size);
        EXPECT_GE(row.num_samples, 3);
        EXPECT_GT(row.mean_us, 0);
        const double bus = row.test == "send_recv" ? 1 : (row.test == "all_gather" ? 1.0 : 2.0) * (size - 1) / size;
        EXPECT_NEAR(row.busbw_gbps, row.algbw_gbps * bus, 1e-9 * row.algbw_gbps);
      }
      for (size_t rank = 1; rank < outcomes.size(); ++rank) EXPECT_TRUE(outcomes[rank].rows.empty());
    }
  }
}

TEST(CommBenchOnDevices, GoesByWayOfTheHost) {
  const std::vector<Outcome> outcomes = bench(3, [](int) { return start_on(DeviceKind::kEmulator, DeviceComm::kMpi); });
  EXPECT_EQ(names_of(outcomes[0].rows),
            (std::vector<std::string>{"all_reduce emulator/thread 4", "all_reduce emulator/thread 3000",
                                      "all_gather emulator/thread 4", "all_gather emulator/thread 3000",
                                      "send_recv emulator/thread 4", "send_recv emulator/thread 3000"}))
      << outcomes[0].error;
}

TEST(CommBenchOnDevices, FindsWrongSumsAndWrongRows) {
  const auto flip = [](ByteSpan bytes) { bytes.back() ^= std::byte{1}; };
  const auto start = [](int) { return start_on(DeviceKind::kEmulator, DeviceComm::kMpi); };
  for (const Outcome& outcome : bench(2, start, flip)) {
    EXPECT_EQ(outcome.code, ErrorCode::kCorrupt);
    EXPECT_NE(outcome.error.find("all_reduce over emulator/thread of 4 bytes gave "), std::string::npos);
    EXPECT_NE(outcome.error.find("the tree's order gives "), std::string::npos) << outcome.error;
  }
  const auto count_up = [](ByteSpan bytes) {  // on the way there and on the way back
    if (bytes.size() == 3000) bytes.front() = std::byte(std::to_integer<int>(bytes.front()) + 1);  // no hello
  };
  for (const Outcome& outcome : bench(2, start, nullptr, count_up)) {
    EXPECT_EQ(outcome.code, ErrorCode::kCorrupt);
    EXPECT_NE(outcome.error.find("send_recv over emulator/thread of 3000 bytes gave "), std::string::npos);
  }
}

TEST(CommBenchOnDevices, RanksRefuseTogether) {
  const auto check = [](const std::vector<Outcome>& outcomes, ErrorCode code, std::string_view words) {
    EXPECT_EQ(outcomes[0].code, code);
    EXPECT_NE(outcomes[0].error.find(words), std::string::npos) << outcomes[0].error;
    EXPECT_TRUE(outcomes[1].rows.empty() && !outcomes[1].code) << outcomes[1].error;  // it is said once
  };
  check(bench(2, [](int) { return start_on(DeviceKind::kCpu, DeviceComm::kNccl); }), ErrorCode::kUnsupported,
        "--comm nccl: rank 0 on ");
  check(bench(2, [](int rank) { return start_on(rank == 0 ? DeviceKind::kCpu : DeviceKind::kEmulator, {}); }),
        ErrorCode::kInvalidArgument, "one answer needs one kind");
}

TEST(CommBenchOnDevices, NoGroupHasMoreRanksThanLeaves) {
  const auto outcomes = bench(17, [](int) { return start_on(DeviceKind::kEmulator, DeviceComm::kMpi); });
  EXPECT_EQ(outcomes[0].code, ErrorCode::kInvalidArgument);
}

TEST(CommBenchOnHosts, MeasuresTheirOwnCommunicator) {
  const std::vector<Outcome> outcomes = bench(2, [](int) { return start_on(DeviceKind::kCpu, std::nullopt); });
  EXPECT_EQ(names_of(outcomes[0].rows), (std::vector<std::string>{"all_reduce thread 4", "all_reduce thread 3000",
                                                                  "send_recv thread 4", "send_recv thread 3000"}));
}

}  // namespace
}  // namespace chorale::worker
