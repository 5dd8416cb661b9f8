#include <random>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "parallel/cluster_plan.h"
#include "parallel/step_plan.h"

namespace chorale::parallel {
namespace {

StepPlan sample_plan() {
  StepPlan plan;
  plan.epoch = 3;
  plan.step = 9;
  plan.ends = {4};
  SequenceStart start;
  start.sequence_id = 7;
  start.history = {1, 2, 3};
  start.prompt_len = 3;
  start.sampling.logit_bias = {{5, -1.5f}};
  start.sampling.banned_until_min = {2};
  plan.starts.push_back(start);
  plan.chunks.push_back(
      {.sequence_id = 7, .first_position = 0, .num_tokens = 3, .tokens = {1, 2, 3}, .new_blocks = {11}});
  SequenceChunk decode;
  decode.sequence_id = 5;
  decode.first_position = 20;
  decode.num_tokens = 1;
  decode.from_step = 8;
  decode.sample = Sample::kYes;
  plan.chunks.push_back(decode);
  return plan;
}

std::string refusal_of(const StepPlan& plan) {
  try {
    validate(plan, /*num_kv_blocks=*/16, /*max_model_len=*/64, /*max_num_batched_tokens=*/8);
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(StepPlan, SurvivesEncoding) {
  const StepPlan plan = sample_plan();
  const StepPlan copy = StepPlan::decode(plan.encode());
  EXPECT_EQ(copy.to_string(), plan.to_string());
  EXPECT_EQ(copy.starts[0].sampling, plan.starts[0].sampling);
  EXPECT_EQ(copy.chunks[0].new_blocks, plan.chunks[0].new_blocks);
  EXPECT_EQ(copy.chunks[1].from_step, 8u);
  EXPECT_EQ(copy.num_tokens(), 4);
}

TEST(StepPlan, IsRefusedWhenItMakesNoSense) {
  EXPECT_EQ(refusal_of(sample_plan()), "accepted");
  StepPlan plan = sample_plan();
  plan.chunks[0].new_blocks = {16};
  EXPECT_EQ(refusal_of(plan), "step 9: sequence 7: block 16 is outside [0, 16)");
  plan = sample_plan();
  plan.chunks[1].sequence_id = 7;
  EXPECT_EQ(refusal_of(plan), "step 9: sequence 7 appears twice");
  plan = sample_plan();
  plan.chunks[0].num_tokens = 4;
  EXPECT_EQ(refusal_of(plan), "step 9: sequence 7: 3 tokens given for 4 rows");
  plan = sample_plan();
  plan.chunks[1].first_position = 64;
  EXPECT_EQ(refusal_of(plan), "step 9: sequence 5: positions [64, +1) are outside [0, 64)");
  plan = sample_plan();
  plan.chunks[1].from_step = 9;
  EXPECT_EQ(refusal_of(plan), "step 9: sequence 5: 0 tokens given for 1 rows");
}

TEST(StepResult, SurvivesEncoding) {
  StepResult result;
  result.step = 12;
  result.sampled.push_back({7, 3, {42, -0.25f}, {{42, -0.25f}, {41, -2.0f}}});
  const StepResult copy = StepResult::decode(result.encode());
  EXPECT_EQ(copy.sampled[0].token.token_id, 42);
  EXPECT_EQ(copy.sampled[0].top[1].logprob, -2.0f);
}

/// Outside bytes never do worse than throw.
template <typename Decode>
void mutate_and_decode(const Bytes& good, Decode decode) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes = good;
    for (int flips = 1 + static_cast<int>(random() % 4); flips > 0; --flips)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random());
    if (random() % 4 == 0) bytes.resize(random() % (bytes.size() + 1));
    try {
      decode(bytes);
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()), "");
    }
  }
}

TEST(Messages, SurviveEncoding) {
  const WorkerHello hello = WorkerHello::decode(WorkerHello{.host = "node",
                                                            .cublaslt_version = "13.1.0",
                                                            .cublaslt_problem = "p",
                                                            .nccl_version = "2.28.9",
                                                            .nccl_problem = "q"}
                                                    .encode());
  EXPECT_EQ(hello.cublaslt_version + hello.cublaslt_problem, "13.1.0p");
  EXPECT_EQ(hello.nccl_version + hello.nccl_problem, "2.28.9q");
  const WorkerFault fault = WorkerFault::decode(WorkerFault{ErrorCode::kDeadlineExceeded, "late"}.encode());
  EXPECT_EQ(fault.code, ErrorCode::kDeadlineExceeded);
  EXPECT_EQ(fault.reason, "late");
  EXPECT_TRUE(fault.lacks_peers());
  EXPECT_FALSE(WorkerFault{}.lacks_peers());
  Bytes no_code = fault.encode();
  no_code[0] = std::byte{200};
  EXPECT_THROW(WorkerFault::decode(no_code), Error);
}

TEST(Messages, SurviveMutation) {
  mutate_and_decode(sample_plan().encode(), [](const Bytes& b) { return StepPlan::decode(b).to_string(); });
  StepResult result;
  result.sampled.push_back({7, 3, {42, -0.25f}, {{42, -0.25f}, {41, -2.0f}}});
  mutate_and_decode(result.encode(), [](const Bytes& b) { return StepResult::decode(b).step; });
  mutate_and_decode(WorkerFault{ErrorCode::kPeerLost, "a word"}.encode(),
                    [](const Bytes& b) { return WorkerFault::decode(b).reason; });
  WorkerHello hello;
  hello.host = "node";
  mutate_and_decode(hello.encode(), [](const Bytes& b) { return WorkerHello::decode(b).rank; });
  ClusterPlan plan;
  plan.layout.stage_layers = {{0, 1}};
  plan.layout.attention_leaves = {{0, 1}};
  plan.layout.mlp_leaves = {{0, 1}};
  plan.layout.vocab_rows = {{0, 1}};
  mutate_and_decode(plan.encode(), [](const Bytes& b) { return ClusterPlan::decode(b).config.to_string(); });
}

TEST(NumericsClass, PrintsEverythingThatDecidesBits) {
  NumericsClass numerics{.compute = DType::kBF16,
                         .cache = DType::kBF16,
                         .isa = Isa::kAvx512,
                         .attention_leaves = 9,
                         .mlp_leaves = 16,
                         .build_id = "abc"};
  EXPECT_EQ(numerics.to_string(), "bf16/cache=bf16/avx512/La=9/Lm=16/build=abc");
  numerics.device = "sm_90";
  EXPECT_EQ(numerics.to_string(), "bf16/cache=bf16/sm_90/gemm=own/La=9/Lm=16/build=abc");
  numerics.answer = Answer::kFast;
  EXPECT_EQ(numerics.to_string(), "bf16/cache=bf16/sm_90/answer=fast/gemm=own/La=9/Lm=16/build=abc");
  ByteWriter out;
  numerics.encode(out);
  const Bytes bytes = out.take();
  ByteReader in(bytes);
  EXPECT_EQ(NumericsClass::decode(in).to_string(), numerics.to_string());
  EXPECT_TRUE(supports(Isa::kScalar));
  EXPECT_TRUE(supports(best_isa(DType::kF32)));
  EXPECT_TRUE(supports(best_isa(DType::kBF16)));
  EXPECT_THROW(isa_from_string("sse"), Error);
}

}  // namespace
}  // namespace chorale::parallel
