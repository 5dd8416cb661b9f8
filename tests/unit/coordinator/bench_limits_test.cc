#include "coordinator/bench/limits.h"

#include <gtest/gtest.h>

#include "coordinator/bench/load.h"
#include "tests/support/model_shapes.h"

namespace chorale::coordinator::bench {
namespace {

ModelCost cost_of_1_1b() { return cost_of(test::llama_1_1b_config(), 2.07e9, 0); }

TEST(ModelCost, AgreesWithTheCountByHand) {
  const ModelCost cost = cost_of_1_1b();
  EXPECT_NEAR(cost.layer_operations_per_token + cost.operations_per_key * 256, 1.98e9, 0.01e9);
  EXPECT_EQ(cost.head_operations_per_row, 2.0 * 2048 * 32000);
}

TEST(DecodeLimit, IsBandwidthForOneStreamAndThePeakForMany) {
  const ModelCost cost = cost_of_1_1b();
  EXPECT_NEAR(decode_limit(cost, 1, 64, 35, 468), 16.9, 0.1);
  EXPECT_NEAR(decode_limit(cost, 8, 64, 35, 468), 8 * 16.9, 1);
  EXPECT_LT(decode_limit(cost, 64, 64, 35, 468), 230);
}

TEST(DecodeLimit, CountsTheKeysOfEveryStream) {
  ModelCost cost = cost_of_1_1b();
  cost.kv_bytes_per_key = 1e6;
  // 2.07 GB of weights and 8 x 1000 keys of 1 MB at 1 TB/s, no limit of the peak.
  EXPECT_NEAR(decode_limit(cost, 8, 1000, 1000, 0), 8 / (10.07e9 / 1e12), 1e-6);
}

TEST(ModelCost, OfAPlanCountsWhatAllRanksRead) {
  parallel::ClusterPlan plan;
  plan.config = test::llama_1_1b_config();
  plan.config.architecture = "toy";  // what these tests know the weights of
  plan.numerics.compute = plan.numerics.cache = DType::kBF16;
  const auto cost = [&](int tp, int pp) {
    plan.layout = parallel::make_layout(plan.config, {.tp = tp, .pp = pp});
    return cost_of(plan);
  };
  EXPECT_EQ(cost(1, 1).kv_bytes_per_key, 22.0 * 2 * 4 * 64 * 2);  // layers, K and V, KV heads, head_dim, bf16
  EXPECT_EQ(cost(2, 2).kv_bytes_per_key, cost(1, 1).kv_bytes_per_key);
  EXPECT_EQ(cost(8, 1).kv_bytes_per_key, 2 * cost(1, 1).kv_bytes_per_key);  // two ranks read each KV head
  EXPECT_GT(cost(1, 1).weight_bytes_per_step, 0);
  EXPECT_EQ(cost(1, 2).weight_bytes_per_step, cost(1, 1).weight_bytes_per_step);
  EXPECT_GE(cost(2, 1).weight_bytes_per_step, cost(1, 1).weight_bytes_per_step);
}

TEST(PrefillLimit, IsThePeakOverTheOperationsOfAToken) { EXPECT_NEAR(prefill_limit(cost_of_1_1b(), 512, 468), 236, 1); }

TEST(RunCosts, ShareTheWallTimeOfTheStages) {
  EngineStats before, after;
  before.stages.resize(2);
  after.stages.resize(2);
  after.stages[0] = {.compute_seconds = 3, .comm_seconds = 1, .wait_seconds = 0, .num_reports = 4};
  after.stages[1] = {.compute_seconds = 4, .comm_seconds = 0, .wait_seconds = 5, .num_reports = 4};
  after.coordinator_seconds = 0.5;
  const RunCosts costs = costs_of(before, after, 10, 1000);
  EXPECT_DOUBLE_EQ(costs.comm_share, 0.125);
  EXPECT_DOUBLE_EQ(costs.bubble, 0.6);                  // 8 of 20 stage seconds at work
  EXPECT_DOUBLE_EQ(costs.overhead_us_per_token, 1000);  // the last stage had a step for 9 of 10 s
  EXPECT_DOUBLE_EQ(costs.coordinator_us_per_token, 500);
}

}  // namespace
}  // namespace chorale::coordinator::bench
