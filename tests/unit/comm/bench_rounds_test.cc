// What benches of communication stand on: sums that show the order of their additions, rounds of equal length on every
// rank, and that a wrong sum is found.
#include "comm/bench_rounds.h"

#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <thread>

#include "comm/base/error.h"
#include "comm/bench_comm.h"
#include "comm/tree_sum.h"

namespace chorale::comm {
namespace {

Deadline soon() { return Deadline::after(std::chrono::seconds(30)); }

/// All ranks' partial sums, a vector a node, left to right.
std::vector<std::vector<float>> nodes_of(const BenchSum& sum, int num_ranks, size_t count) {
  std::vector<std::vector<float>> nodes;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::vector<float> own = sum.partials(rank);
    for (size_t at = 0; at < own.size(); at += count)
      nodes.emplace_back(own.begin() + static_cast<ptrdiff_t>(at), own.begin() + static_cast<ptrdiff_t>(at + count));
  }
  return nodes;
}

std::vector<float> tree_root(const BenchSum& sum, const std::vector<std::vector<float>>& nodes) {
  std::vector<const float*> pointers;
  for (const auto& node : nodes) pointers.push_back(node.data());
  std::vector<float> root(nodes.front().size());
  tree_sum(sum.schedule(), pointers, root.size(), root.data());
  return root;
}

std::vector<float> left_to_right(const std::vector<std::vector<float>>& nodes) {
  std::vector<float> sum = nodes.front();
  for (size_t k = 1; k < nodes.size(); ++k) add_vectors(sum.data(), nodes[k].data(), sum.size(), sum.data());
  return sum;
}

ErrorCode code_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "nothing was thrown";
  return ErrorCode::kInvalidArgument;
}

TEST(BenchSum, TakesTheTreesOrderAndNoOther) {
  for (const int num_ranks : {2, 3, 4, 7, 16, 20}) {
    SCOPED_TRACE(num_ranks);
    for (const size_t count : {size_t{1}, size_t{500}, size_t{10000}}) {  // below and above where values repeat
      const BenchSum sum(num_ranks, count);
      const auto nodes = nodes_of(sum, num_ranks, count);
      ASSERT_EQ(nodes.size(), sum.schedule().nodes.size());
      std::vector<float> root = tree_root(sum, nodes);
      sum.check_root(root, "a sum");
      if (num_ranks > 2 && count > 1) {
        EXPECT_EQ(code_of([&] { sum.check_root(left_to_right(nodes), "a sum"); }), ErrorCode::kCorrupt);
      }
      for (const size_t at : {size_t{0}, count / 2, count - 1}) {
        const float good = root[at];
        root[at] = std::bit_cast<float>(std::bit_cast<uint32_t>(good) ^ 1u);
        EXPECT_EQ(code_of([&] { sum.check_root(root, "a sum"); }), ErrorCode::kCorrupt);
        root[at] = good;
      }
    }
  }
}

TEST(BenchSum, AnyOrderMayRoundButNotMiss) {
  constexpr size_t kCount = 5000;
  constexpr int kRanks = 4;
  const BenchSum sum(kRanks, kCount);
  std::vector<std::vector<float>> values;
  for (int rank = 0; rank < kRanks; ++rank) values.push_back(sum.values(rank));
  std::vector<float> got = left_to_right(values);
  sum.check_any_order(got, 1, "a sum");
  std::ranges::reverse(values);
  sum.check_any_order(left_to_right(values), 1, "a sum");
  for (float& value : got) value *= kRanks * kRanks;  // equal sums, added up twice more
  sum.check_any_order(got, 3, "a sum");
  EXPECT_EQ(code_of([&] { sum.check_any_order(got, 2, "a sum"); }), ErrorCode::kCorrupt);
  values.pop_back();
  EXPECT_EQ(code_of([&] { sum.check_any_order(left_to_right(values), 1, "a sum"); }), ErrorCode::kCorrupt);
}

TEST(BenchRounds, AllRanksRepeatEquallyOften) {
  for (const double seconds : {0.0, 30.0}) {
    auto ranks = make_threads(3);
    CommBenchOptions options{.warmup = 7, .iterations = 50, .seconds_per_size = seconds};
    std::array<std::atomic<int>, 3> repeated{};
    std::array<size_t, 3> num_times{};
    std::vector<std::thread> threads;
    for (size_t r = 0; r < ranks.size(); ++r)
      threads.emplace_back([&, r] {
        num_times[r] = run_rounds(*ranks[r], options, 4, [&](int count) {
                         repeated[r] += count;
                         return std::vector<double>(static_cast<size_t>(count), 1.0);
                       }).size();
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(repeated[0], repeated[1]);
    EXPECT_EQ(repeated[0], repeated[2]);
    if (seconds > 0) {
      EXPECT_GE(num_times[0], 50u);
      EXPECT_GE(static_cast<size_t>(repeated[0]), num_times[0] + 7);  // the warm-up does not count
    } else {
      EXPECT_EQ(num_times[0], 1u);
      EXPECT_EQ(repeated[0], 2);
    }
  }
}

/// Adds from left to right.
class WrongOrder : public Communicator {
 public:
  explicit WrongOrder(Communicator& right) : right_(right) {}
  int rank() const override { return right_.rank(); }
  int size() const override { return right_.size(); }
  std::string backend() const override { return "wrong"; }
  void send(ConstByteSpan data, int to, int tag, Deadline until) override { right_.send(data, to, tag, until); }
  void recv(ByteSpan data, int from, int tag, Deadline until) override { right_.recv(data, from, tag, until); }
  void barrier(Deadline until) override { right_.barrier(until); }
  void broadcast(ByteSpan data, int root, Deadline until) override { right_.broadcast(data, root, until); }
  void all_gather(ByteSpan all, std::span<const size_t> offsets, Deadline until) override {
    right_.all_gather(all, offsets, until);
  }
  void tree_all_reduce(const TreeSchedule& schedule, std::span<float> partials, std::span<float> out,
                       Deadline until) override {
    TreeSchedule chain = schedule;
    for (size_t k = 0; k < chain.additions.size(); ++k) chain.additions[k] = {0, static_cast<int>(k) + 1};
    std::vector<size_t> offsets;
    for (const int first : schedule.first_node) offsets.push_back(static_cast<size_t>(first) * out.size_bytes());
    std::vector<float> all(schedule.nodes.size() * out.size());
    const auto own = static_cast<size_t>(schedule.first_node[static_cast<size_t>(rank())]) * out.size();
    std::ranges::copy(partials, all.begin() + static_cast<ptrdiff_t>(own));
    all_gather(std::as_writable_bytes(std::span(all)), offsets, until);
    std::vector<const float*> nodes;
    for (size_t k = 0; k < schedule.nodes.size(); ++k) nodes.push_back(all.data() + k * out.size());
    tree_sum(chain, nodes, out.size(), out.data());
  }
  void tree_reduce_scatter(const TreeSchedule& schedule, std::span<float> partials, std::span<const size_t> begin,
                           std::span<float> out, Deadline until) override {
    right_.tree_reduce_scatter(schedule, partials, begin, out, until);
  }
  std::unique_ptr<Communicator> split(const std::vector<int>& members, Deadline until) override {
    return right_.split(members, until);
  }

 private:
  Communicator& right_;
};

TEST(CommBench, FindsSumsOfAnotherOrder) {
  auto ranks = make_threads(4);
  std::vector<std::thread> threads;
  for (auto& rank : ranks)
    threads.emplace_back([&rank] {
      WrongOrder wrong(*rank);
      EXPECT_EQ(code_of([&] {
                  measure_communicator(wrong, {.sizes = {4096}, .warmup = 1, .iterations = 1, .seconds_per_size = 0});
                }),
                ErrorCode::kCorrupt);
      rank->barrier(soon());
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace chorale::comm
