#include "coordinator/commands/cluster_options.h"

#include <gtest/gtest.h>
#include <cxxopts.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator {
namespace {

ClusterOptions read(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "serve");
  cxxopts::Options options("chorale serve");
  add_cluster_options(options);
  return read_cluster_options(options.parse(static_cast<int>(arguments.size()), arguments.data()));
}

std::string refusal_of(std::vector<const char*> arguments) {
  try {
    read(std::move(arguments));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(ClusterOptions, ReadsVllmsSpellingsAndShortOnes) {
  const ClusterOptions a = read({"--model",
                                 "m",
                                 "--tensor-parallel-size",
                                 "2",
                                 "--pp",
                                 "3",
                                 "--dtype",
                                 "bfloat16",
                                 "--max-num-seqs",
                                 "8",
                                 "--max-num-batched-tokens",
                                 "2000",
                                 "--kv-cache-memory-bytes",
                                 "1G",
                                 "--num-kv-blocks",
                                 "77",
                                 "--scheduling-policy",
                                 "priority",
                                 "--no-enable-prefix-caching",
                                 "--seed",
                                 "18446744073709551615",
                                 "--stages",
                                 "10,12,8",
                                 "--shares",
                                 "2,1.5",
                                 "--isa",
                                 "avx2",
                                 "--served-model-name",
                                 "a"});
  EXPECT_EQ(a.request.model_path, "m");
  EXPECT_EQ(a.request.layout.tp, 2);
  EXPECT_EQ(a.request.layout.pp, 3);
  EXPECT_EQ(a.request.layout.stages, (std::vector<int>{10, 12, 8}));
  EXPECT_EQ(a.request.layout.shares, (std::vector<double>{2, 1.5}));
  EXPECT_EQ(a.request.dtype, DType::kBF16);
  EXPECT_EQ(a.request.max_num_seqs, 8);
  EXPECT_EQ(a.request.max_num_batched_tokens, 2000);
  EXPECT_EQ(a.request.kv_cache_memory_bytes, 1ULL << 30);
  EXPECT_EQ(a.request.num_kv_blocks, 77);
  EXPECT_EQ(a.request.isa, parallel::Isa::kAvx2);
  EXPECT_EQ(a.engine.policy, SchedulingPolicy::kPriority);
  EXPECT_EQ(a.engine.prefix_caching, PrefixCaching::kOff);
  EXPECT_EQ(a.seed, 18446744073709551615ULL);
  EXPECT_EQ(a.served_model_names, (std::vector<std::string>{"a"}));
}

TEST(ClusterOptions, ChoosesWhatIsNotGiven) {
  const ClusterOptions a = read({"--model", "m"});
  EXPECT_EQ(a.request.layout.tp * a.request.layout.pp, 1);
  EXPECT_FALSE(a.request.dtype);
  EXPECT_FALSE(a.request.isa);
  EXPECT_EQ(a.request.max_model_len, 0);
  EXPECT_EQ(a.engine.prefix_caching, PrefixCaching::kOn);
  EXPECT_FALSE(a.seed);
  EXPECT_FALSE(a.request.cuda_graphs);
  EXPECT_EQ(read({"--model", "m", "--cuda-graphs"}).request.cuda_graphs, parallel::CudaGraphs::kOn);
  EXPECT_EQ(read({"--model", "m", "--enforce-eager"}).request.cuda_graphs, parallel::CudaGraphs::kOff);
}

TEST(ClusterOptions, RefusesByNameWithWhatWasExpected) {
  const struct {
    std::vector<const char*> arguments;
    const char* says;
  } cases[] = {
      {{"--tp", "2"}, "--model is required"},
      {{"--model", "m", "--tp", "0"}, "--tensor-parallel-size 0: expected 1 to"},
      {{"--model", "m", "--dtype", "f64"}, "--dtype f64: one of auto, f32, bf16"},
      {{"--model", "m", "--max-num-seqs", "0"}, "--max-num-seqs 0"},
      {{"--model", "m", "--kv-cache-memory-bytes", "-5"}, "--kv-cache-memory-bytes -5"},
      {{"--model", "m", "--kv-cache-memory-bytes", "5T"}, "--kv-cache-memory-bytes 5T"},
      {{"--model", "m", "--kv-cache-memory-bytes", ""}, "--kv-cache-memory-bytes : expected"},
      {{"--model", "m", "--kv-cache-memory-bytes", "18446744073709551615G"}, "expected bytes"},
      {{"--model", "m", "--num-kv-blocks", "-1"}, "--num-kv-blocks -1"},
      {{"--model", "m", "--stages", "10,x"}, "--stages 10,x: 'x' is not a number"},
      {{"--model", "m", "--scheduling-policy", "sjf"}, "--scheduling-policy sjf: one of fcfs, priority"},
      {{"--model", "m", "--isa", "sse"}, "avx2"},
      {{"--model", "m", "--log-level", "loud"}, "loud"},
      {{"--model", "m", "--control-port", "65536"}, "0 to 65535"},
      {{"--model", "m", "--enable-prefix-caching", "--no-enable-prefix-caching"}, "contradict"},
  };
  for (const auto& c : cases)
    EXPECT_NE(refusal_of(c.arguments).find(c.says), std::string::npos) << c.says << ": " << refusal_of(c.arguments);
}

}  // namespace
}  // namespace chorale::coordinator
