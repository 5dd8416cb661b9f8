// What a world may take of its hosts' and GPUs' memory, and what is said where it asks for more.
#include "coordinator/memory_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "tests/support/toy_model.h"
#include "tests/unit/coordinator/toy_request.h"

namespace chorale::coordinator {
namespace {

using parallel::ClusterPlan;
using parallel::WorkerHello;
using test::toy_config;
using test::toy_hellos;
using testing::HasSubstr;

/// Two ranks of one host, each on the GPU that it names.
std::vector<WorkerHello> gpu_hellos(uint64_t free_bytes, const std::string& first, const std::string& second) {
  auto hellos = toy_hellos(2, 2);
  for (WorkerHello& hello : hellos) {
    hello.device = "cuda";
    hello.device_arithmetic = "sm_90";
    hello.device_name = "NVIDIA H200";
    hello.device_free_bytes = free_bytes;
    hello.device_identity = hello.device_bus_id = &hello == &hellos.front() ? first : second;
  }
  return hellos;
}

/// What is said of a world that cannot be; "" where it can.
std::string refusal(const ClusterRequest& request, const std::vector<WorkerHello>& hellos) {
  try {
    make_cluster_plan(request, toy_config(), hellos, 1);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted) << error.what();
    return error.what();
  }
  return "";
}

TEST(MemoryBudget, TakesTheFewestBlocksThatAnyRankHasRoomFor) {
  const auto config = toy_config();
  auto hellos = toy_hellos(2, 1, 1ULL << 30);
  hellos[1].free_memory_bytes = 600ULL << 20;
  const ClusterPlan plan = make_cluster_plan(toy_request(2, 1), config, hellos, 1);
  const uint64_t room = (600ULL << 20) / 4;
  EXPECT_EQ(plan.num_kv_blocks, static_cast<int64_t>(room / kv_block_bytes(config, plan.layout, 1, DType::kBF16)));
}

TEST(MemoryBudget, TakesNoMoreBlocksThanTheSequencesNeed) {
  ClusterRequest request = toy_request(1, 1);
  request.max_num_seqs = 3;
  request.max_model_len = 100;
  EXPECT_EQ(make_cluster_plan(request, toy_config(), toy_hellos(1, 1), 1).num_kv_blocks, 3 * 7);
  request.num_kv_blocks = 11;
  EXPECT_EQ(make_cluster_plan(request, toy_config(), toy_hellos(1, 1), 1).num_kv_blocks, 11);
}

TEST(MemoryBudget, TellsWhatFitsAndWhatIsNeeded) {
  ClusterRequest request = toy_request(1, 1);
  request.max_num_seqs = 3;
  request.max_model_len = 100;
  const auto hellos = toy_hellos(1, 1);
  const ClusterPlan plan = make_cluster_plan(request, toy_config(), hellos, 1);
  request.kv_cache_memory_bytes = 25 * kv_block_bytes(plan.config, plan.layout, 0, plan.numerics.cache) + 1;
  const KvBudget budget = kv_budget(request, plan, hellos);
  EXPECT_EQ(budget.affordable, 25);
  EXPECT_EQ(budget.needed, 3 * 7);
}

TEST(MemoryBudget, SizesTheCacheByWhatIsFreeOnAGpuBesideTheWeights) {
  auto hellos = gpu_hellos(4ULL << 30, "one for both", "one for both");
  ClusterRequest request = toy_request(2, 1);
  request.max_num_seqs = 1000;  // more than there is room for
  const ClusterPlan plan = make_cluster_plan(request, toy_config(), hellos, 1);
  EXPECT_EQ(plan.numerics.device, "sm_90");
  EXPECT_NE(plan.numerics.to_string().find("/sm_90/"), std::string::npos);
  const uint64_t room = (4ULL << 30) / 10 * 9 / 2;
  for (const WorkerHello& hello : hellos) {
    const uint64_t used = weight_bytes(plan.config, plan.layout, hello.rank, plan.numerics.compute).resident +
                          static_cast<uint64_t>(plan.num_kv_blocks) *
                              kv_block_bytes(plan.config, plan.layout, hello.rank, plan.numerics.cache);
    EXPECT_LE(used, room) << "rank " << hello.rank;
  }
  hellos[1].device_identity = "another";  // each has one to itself, although both see only one
  EXPECT_GT(make_cluster_plan(request, toy_config(), hellos, 1).num_kv_blocks, 2 * plan.num_kv_blocks);
}

TEST(MemoryBudget, AGpuThatTheWeightsFillNeedsMoreRanksNotAnotherFlag) {
  const std::string said = refusal(toy_request(2, 1), gpu_hellos(200ULL << 20, "a", "b"));
  EXPECT_THAT(said, HasSubstr("NVIDIA H200 of rank 0 on node0 has 180 MiB for the rank"));
  EXPECT_THAT(said, HasSubstr("leave the KV cache nothing: use a greater --tp or --pp"));
  EXPECT_THAT(said, testing::Not(HasSubstr("--kv-cache-memory-bytes")));
}

TEST(MemoryBudget, ACacheThatAGpuCannotHoldIsRefused) {
  ClusterRequest request = toy_request(2, 1);
  request.max_num_seqs = 4096;
  request.kv_cache_memory_bytes = 900ULL << 30;
  const auto alone = gpu_hellos(80ULL << 30, "a", "b");
  const std::string said = refusal(request, alone);
  EXPECT_THAT(said, HasSubstr("NVIDIA H200 of rank 0 on node0 has 81920 MiB free"));
  EXPECT_THAT(said, HasSubstr("MiB too little; use a greater --tp or --pp, or fewer --num-kv-blocks"));
  request.kv_cache_memory_bytes = 60ULL << 30;
  EXPECT_EQ(refusal(request, alone), "");
  EXPECT_THAT(refusal(request, gpu_hellos(80ULL << 30, "a", "a")), HasSubstr("too little"));  // both on one
  request.kv_cache_memory_bytes = 0;
  request.num_kv_blocks = 9'000'000;
  EXPECT_THAT(refusal(request, alone), HasSubstr("too little"));
}

TEST(MemoryBudget, OnAGpuASequenceThatIsTooLongIsToldOfLayoutsNotOfAQuarter) {
  ClusterRequest request = toy_request(2, 1);
  const std::string said = refusal(request, gpu_hellos(730ULL << 20, "a", "b"));
  EXPECT_THAT(said, HasSubstr("one sequence of 8192 tokens needs 512"));
  EXPECT_THAT(said, HasSubstr("use a greater --tp or --pp"));
  EXPECT_THAT(said, testing::Not(HasSubstr("quarter")));
}

}  // namespace
}  // namespace chorale::coordinator
