// The cost model against cases that are computed by hand, with round figures.
#include "parallel/recommend/step_cost.h"

#include <gtest/gtest.h>

#include "tests/support/figures.h"
#include "tests/support/toy_model.h"

namespace chorale::parallel {
namespace {

using test::round_machine;
using test::square_config;

// 16 leaves halved, quartered: every rank has one node of the tree.
comm::TreeSchedule schedule_for(const Layout& layout) { return comm::make_tree_schedule(16, layout.mlp_leaves); }

SizedLayout sized(const ModelConfig& config, int tp, int pp) {
  return count_bytes(config, make_layout(config, {.tp = tp, .pp = pp}), {});
}

TEST(AllReduceCost, IsOneExchangeOfThePartialsOfTwoNeighbours) {
  const MachineFigures machine = round_machine(1, 2);
  const Layout layout = make_layout(square_config(2), {.tp = 2});
  const double bandwidth = machine.inside.bytes_per_s * kReachedLink;
  EXPECT_DOUBLE_EQ(all_reduce_seconds(machine, layout, 0, schedule_for(layout), 1000),
                   machine.inside.latency_s + 4000 / bandwidth);
  EXPECT_EQ(all_reduce_seconds(machine, make_layout(square_config(2), {}), 0, {}, 1000), 0);
}

TEST(AllReduceCost, SendsSlicesAndTheirSumsBetweenCpusWherePartialsAreLarge) {
  MachineFigures machine = round_machine(2, 2);
  machine.device = DeviceKind::kCpu;
  const Layout layout = make_layout(square_config(2), {.tp = 4});
  const double inside = machine.inside.bytes_per_s * kReachedLink, between = machine.between.bytes_per_s * kReachedLink;
  const double latency = machine.inside.latency_s + machine.between.latency_s;  // one round each
  EXPECT_TRUE(crosses_nodes(machine, layout, 0));
  // Few: two partials into each node, three into each rank.
  EXPECT_DOUBLE_EQ(all_reduce_seconds(machine, layout, 0, schedule_for(layout), 10),
                   latency + 2 * 40 / between + 3 * 40 / inside);
  // Many, in quarters: two ranks take two quarters each from the other node, one of the neighbour; then the sums.
  const double quarter = 1e6;
  EXPECT_DOUBLE_EQ(
      all_reduce_seconds(machine, layout, 0, schedule_for(layout), 1e6),
      latency + 4 * quarter / between + quarter / inside + latency + 2 * quarter / between + 3 * quarter / inside);
}

TEST(AllReduceCost, SendsWholePartialsBetweenGpus) {
  const MachineFigures machine = round_machine(2, 2);
  const Layout layout = make_layout(square_config(2), {.tp = 4});
  const double inside = machine.inside.bytes_per_s * kReachedLink, between = machine.between.bytes_per_s * kReachedLink;
  EXPECT_DOUBLE_EQ(all_reduce_seconds(machine, layout, 0, schedule_for(layout), 1e6),
                   machine.inside.latency_s + machine.between.latency_s + 2 * 4e6 / between + 3 * 4e6 / inside);
}

TEST(AllReduceCost, CountsEveryNodeOfAnUnevenRun) {
  const MachineFigures machine = round_machine(1, 3);
  const Layout layout = make_layout(square_config(2), {.tp = 3});
  const comm::TreeSchedule schedule = schedule_for(layout);
  const auto others = static_cast<double>(schedule.nodes.size()) - 1;  // the first rank has at least one itself
  EXPECT_GT(schedule.nodes.size(), 3u);
  EXPECT_GE(all_reduce_seconds(machine, layout, 0, schedule, 1), 2 * machine.inside.latency_s);  // two rounds for three
  EXPECT_LE(all_reduce_seconds(machine, layout, 0, schedule, 1),
            2 * machine.inside.latency_s + others * 4 / (machine.inside.bytes_per_s * kReachedLink));
}

TEST(StageTime, ReadsWeightsAndCacheOfOneSequence) {
  const MachineFigures machine = round_machine(1, 1);
  const StepTime time = stage_time(machine, square_config(2), sized(square_config(2), 1, 1), 0,
                                   {.rows = 1, .sampled = 1, .kv_tokens = 100, .keys_per_row = 100});
  // A layer: 2^24 elements of 2 bytes and two norms; then a norm and lm_head of 4096 x 1024; KV of 16 heads of 64.
  const double weights = 2 * ((1 << 25) + 2 * 4096) + 4096 + 4096.0 * 1024 * 2;
  const double cache = 100 * 2.0 * 2 * 16 * 64 * 2;
  EXPECT_DOUBLE_EQ(time[Cost::kReads], (weights + cache) / (machine.memory_bytes_per_s * kReachedBandwidth));
  EXPECT_EQ(time[Cost::kArithmetic], 0);
  EXPECT_EQ(time.largest(), Cost::kReads);
  EXPECT_DOUBLE_EQ(time.total(), time[Cost::kReads]);  // alone it exchanges nothing
}

TEST(StageTime, ComputesWhereRowsAreMany) {
  const MachineFigures machine = round_machine(1, 1);
  const StepTime time =
      stage_time(machine, square_config(1), sized(square_config(1), 1, 1), 0, {.rows = 4096, .sampled = 1});
  const double operations = 2.0 * 4096 * (1 << 24) + 2.0 * 4096 * 1024;
  EXPECT_NEAR(time[Cost::kArithmetic], operations / (machine.bf16_ops_per_s * kReachedRate), 1e-3 * time.total());
  EXPECT_EQ(time[Cost::kReads], 0);
}

TEST(StageTime, SharesWhatANodeOwnsAmongTheRanksThatAreOnIt) {
  MachineFigures machine = round_machine(2, 4);
  machine.owner = Owner::kNode;
  const ModelConfig config = square_config(8);
  EXPECT_EQ(share_of(machine, make_layout(config, {}), 0), 1);
  const Layout six = make_layout(config, {.tp = 1, .pp = 6});
  EXPECT_EQ(share_of(machine, six, 3), 0.25);
  EXPECT_EQ(share_of(machine, six, 4), 0.5);
}

TEST(StageTime, HopsToTheNextStageAndReturnsTheSampledTokens) {
  const MachineFigures machine = round_machine(2, 2);
  const SizedLayout layout = sized(square_config(4), 2, 2);  // a stage on each node
  const double between = machine.between.bytes_per_s * kReachedLink;
  const StepTime first = stage_time(machine, square_config(4), layout, 0, {.rows = 8, .sampled = 8});
  EXPECT_DOUBLE_EQ(first[Cost::kHops],
                   machine.between.latency_s + 2 * 8 * 4096 / between);  // two ranks share the network
  EXPECT_EQ(first[Cost::kLogits], 0);
  EXPECT_EQ(first[Cost::kReduceBetween], 0);
  const StepTime last = stage_time(machine, square_config(4), layout, 1, {.rows = 8, .sampled = 8});
  EXPECT_DOUBLE_EQ(last[Cost::kHops], machine.between.latency_s);
  EXPECT_DOUBLE_EQ(last[Cost::kLogits],
                   machine.inside.latency_s + 8 * 2048 * 4 / (machine.inside.bytes_per_s * kReachedLink));
  const double elements = 8 * 1024;
  EXPECT_DOUBLE_EQ(first[Cost::kReduceInside],
                   static_cast<double>(layout.layout.stage_layers[0].size()) * 2 *
                       (machine.inside.latency_s + elements * 4 / (machine.inside.bytes_per_s * kReachedLink)));
}

}  // namespace
}  // namespace chorale::parallel
