#include "coordinator/make_cluster_plan.h"

#include <functional>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "tests/support/toy_model.h"
#include "tests/unit/coordinator/toy_request.h"

namespace chorale::coordinator {
namespace {

using parallel::ClusterPlan;
using parallel::Isa;
using parallel::WorkerHello;
using test::toy_config;
using test::toy_hellos;

TEST(MakeClusterPlan, ChoosesTypeClassThreadsAndSpinning) {
  const ClusterPlan plan = make_cluster_plan(toy_request(2, 2), toy_config(), toy_hellos(4, 2), 9);
  plan.validate();
  EXPECT_EQ(plan.epoch, 9U);
  EXPECT_EQ(plan.numerics.compute, DType::kBF16);
  EXPECT_EQ(plan.numerics.cache, DType::kBF16);
  EXPECT_EQ(plan.numerics.isa, Isa::kAvx512Bf16);
  EXPECT_EQ(plan.numerics.attention_leaves, 9);
  EXPECT_EQ(plan.threads, 4);
  EXPECT_GT(plan.spin_us, 0);
  EXPECT_EQ(plan.max_model_len, 8192);
}

TEST(MakeClusterPlan, TakesF32ForF32CheckpointsAndTheWeakestInstructionSet) {
  auto config = toy_config();
  config.stored_dtype = DType::kF32;
  auto hellos = toy_hellos(2, 1);
  hellos[1].best_isa_f32 = Isa::kAvx2;
  const ClusterPlan plan = make_cluster_plan(toy_request(2, 1), config, hellos, 1);
  EXPECT_EQ(plan.numerics.compute, DType::kF32);
  EXPECT_EQ(plan.numerics.isa, Isa::kAvx2);
  ClusterRequest weaker = toy_request(2, 1);
  weaker.isa = Isa::kScalar;
  EXPECT_EQ(make_cluster_plan(weaker, config, hellos, 1).numerics.isa, Isa::kScalar);
}

TEST(MakeClusterPlan, SaysWhatActivationsTravelOver) {
  const auto line = [](const ClusterRequest& request, const std::vector<WorkerHello>& hellos) {
    const std::string text = make_cluster_plan(request, toy_config(), hellos, 1).to_string();
    return text.substr(0, text.find('\n'));
  };
  ClusterRequest request = toy_request(2, 1);
  auto hellos = toy_hellos(2, 2);
  EXPECT_EQ(line(request, hellos).find("activations"), std::string::npos) << "there is no choice on CPUs";
  for (WorkerHello& hello : hellos) {
    hello.device = "cuda";
    hello.device_arithmetic = "sm_90";
    hello.device_free_bytes = uint64_t{8} << 30;
    hello.device_identity = hello.device_bus_id = std::to_string(hello.rank);
    hello.nccl_version = "2.28.9";
  }
  EXPECT_TRUE(line(request, hellos).ends_with(", activations over NCCL 2.28.9")) << line(request, hellos);
  const ClusterPlan plan = make_cluster_plan(request, toy_config(), hellos, 1);
  EXPECT_EQ(ClusterPlan::decode(plan.encode()).to_string(), plan.to_string());
  request.comm = parallel::DeviceComm::kMpi;
  EXPECT_TRUE(line(request, hellos).ends_with(", activations over MPI")) << line(request, hellos);
  hellos.resize(1);
  hellos[0].num_ranks = 1;
  EXPECT_EQ(line(toy_request(1, 1), hellos).find("activations"), std::string::npos);
}

TEST(MakeClusterPlan, RemarksOnWhatWasAskedForAndCannotBe) {
  ClusterRequest request = toy_request(2, 1);
  auto hellos = toy_hellos(2, 2);
  const auto said = [&] { return remarks(request, make_cluster_plan(request, toy_config(), hellos, 1), hellos); };
  EXPECT_TRUE(said().empty());
  request.cuda_graphs = parallel::CudaGraphs::kOn;
  ASSERT_EQ(said().size(), 1U);
  EXPECT_EQ(said()[0], "--cuda-graphs: the ranks compute on the CPU, where there are none");
  for (WorkerHello& hello : hellos) {
    hello.device = "emulator";
    hello.device_arithmetic = "emulator";
  }
  ASSERT_EQ(said().size(), 1U);
  EXPECT_NE(said()[0].find("--cuda-graphs: none are recorded, since with tp > 1 over MPI"), std::string::npos);
  for (WorkerHello& hello : hellos) hello.nccl_version = "2.28.9";
  EXPECT_TRUE(said().empty()) << "over NCCL there are";
  request.comm = parallel::DeviceComm::kMpi;
  EXPECT_EQ(said().size(), 1U);
  request.layout.tp = 1;
  request.layout.pp = 2;
  EXPECT_TRUE(said().empty()) << "stages hand on between their graphs";
  request.layout.tp = 2;
  request.layout.pp = 1;
  request.cuda_graphs.reset();
  EXPECT_TRUE(said().empty()) << "nobody asked";
}

TEST(MakeClusterPlan, TakesCublasLtOnlyWhereAllRanksHaveTheSame) {
  auto hellos = toy_hellos(2, 2);
  ClusterRequest request = toy_request(2, 1);
  const auto refusal = [&] {
    try {
      make_cluster_plan(request, toy_config(), hellos, 1);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  EXPECT_EQ(make_cluster_plan(request, toy_config(), hellos, 1).numerics.gemm, "own");
  request.gemm = Gemm::kCublasLt;
  EXPECT_NE(refusal().find("the ranks compute on the CPU"), std::string::npos);
  for (WorkerHello& hello : hellos) {
    hello.device = "cuda";
    hello.device_arithmetic = "sm_90";
    hello.device_name = "NVIDIA H200";
    hello.device_free_bytes = uint64_t{8} << 30;
  }
  hellos[0].cublaslt_version = "13.1.0";
  EXPECT_EQ(refusal(),
            "--gemm cublaslt: rank 1 on node0: it was started without --gemm cublaslt (--gemm own does without it)");
  hellos[1].cublaslt_problem = "cuBLASLt was not found";
  EXPECT_EQ(refusal(), "--gemm cublaslt: rank 1 on node0: cuBLASLt was not found (--gemm own does without it)");
  hellos[1].cublaslt_version = "12.8.5";
  EXPECT_NE(refusal().find("has version 12.8.5 on NVIDIA H200, rank 0 has 13.1.0"), std::string::npos);
  hellos[1].cublaslt_version = "13.1.0";
  EXPECT_EQ(make_cluster_plan(request, toy_config(), hellos, 1).numerics.gemm, "cublaslt-13.1.0/NVIDIA_H200/tp=2");
  request.dtype = DType::kF32;
  EXPECT_NE(refusal().find("bf16"), std::string::npos);
  request.dtype.reset();
  request.layout.shares = {2, 1};
  EXPECT_NE(refusal().find("--shares"), std::string::npos);
  EXPECT_THROW(gemm_from_string("mkl"), Error);
}

TEST(MakeClusterPlan, AFastAnswerNeedsGpusWithCublasLt) {
  auto hellos = toy_hellos(2, 2);
  ClusterRequest request = toy_request(2, 1);
  request.answer = parallel::answer_from_string("fast");
  const auto outcome = [&] {
    try {
      return make_cluster_plan(request, toy_config(), hellos, 1).numerics.to_string();
    } catch (const Error& error) {
      return std::string(error.what());
    }
  };
  const auto expect = [&](std::string_view words) { EXPECT_NE(outcome().find(words), std::string::npos) << outcome(); };
  expect("--answer fast: the ranks compute on the CPU");
  for (WorkerHello& hello : hellos) {
    hello.device = "cuda";
    hello.device_arithmetic = "sm_90";
    hello.device_name = "NVIDIA H200";
    hello.device_free_bytes = uint64_t{8} << 30;
  }
  expect("--answer fast: rank 0 on");
  expect("(--answer one does without it)");
  for (WorkerHello& hello : hellos) hello.cublaslt_version = "13.1.0";
  expect("/sm_90/answer=fast/gemm=cublaslt-13.1.0/NVIDIA_H200/tp=2/");
  request.layout.shares = {2, 1};
  expect("/answer=fast/");
  request.dtype = DType::kF32;
  expect("--answer fast: it serves --dtype bf16");
  EXPECT_EQ(needed_gemm(request), Gemm::kCublasLt);
  EXPECT_THROW(parallel::answer_from_string("quick"), Error);
}

TEST(MakeClusterPlan, Float16IsForGpus) {
  auto hellos = toy_hellos(2, 2);
  ClusterRequest request = toy_request(2, 1);
  request.dtype = DType::kF16;
  try {
    make_cluster_plan(request, toy_config(), hellos, 1);
    ADD_FAILURE() << "not refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("use --dtype bf16"), std::string::npos) << error.what();
  }
  for (WorkerHello& hello : hellos) hello.device = hello.device_arithmetic = "emulator";
  const parallel::NumericsClass numerics = make_cluster_plan(request, toy_config(), hellos, 1).numerics;
  EXPECT_NE(numerics.to_string().find("f16/cache=f16/emulator/"), std::string::npos) << numerics.to_string();
  ByteWriter out;
  numerics.encode(out);
  const Bytes bytes = out.take();
  ByteReader in(bytes);
  EXPECT_EQ(parallel::NumericsClass::decode(in).compute, DType::kF16);
}

TEST(MakeClusterPlan, DoesNotSpinWhereThreadsExceedCores) {
  ClusterRequest request = toy_request(4, 1);
  request.threads = 3;
  EXPECT_EQ(make_cluster_plan(request, toy_config(), toy_hellos(4, 4), 1).spin_us, 0);
  EXPECT_EQ(make_cluster_plan(toy_request(4, 1), toy_config(), toy_hellos(4, 4), 1).threads, 2);
}

TEST(MakeClusterPlan, RefusesWithBothNumbers) {
  struct Case {
    std::string says;
    std::function<void(ClusterRequest&, std::vector<WorkerHello>&)> change;
    ErrorCode code = ErrorCode::kInvalidArgument;
  };
  const std::vector<Case> cases = {
      {"", [](auto&, auto&) {}},
      {"rank 1 on node0 runs build xyz, rank 0 runs abc", [](auto&, auto& hellos) { hellos[1].build_id = "xyz"; }},
      {"rank 1 on node0 computes on cuda (sm_90), rank 0 on cpu",
       [](auto&, auto& hellos) {
         hellos[1].device = "cuda";
         hellos[1].device_arithmetic = "sm_90";
       }},
      {"the model has 8192 positions", [](auto& request, auto&) { request.max_model_len = 9000; }},
      {"--max-num-seqs 0", [](auto& request, auto&) { request.max_num_seqs = 0; }},
      {"--max-num-batched-tokens -3", [](auto& request, auto&) { request.max_num_batched_tokens = -3; }},
      {"--num-kv-blocks -1", [](auto& request, auto&) { request.num_kv_blocks = -1; }},
      {"--threads 5000", [](auto& request, auto&) { request.threads = 5000; }},
      {"needs 512: --max-model-len 64 fits, or raise --num-kv-blocks to 512",
       [](auto& request, auto&) { request.num_kv_blocks = 4; }, ErrorCode::kResourceExhausted},
      {"--max-model-len 8176 fits", [](auto& request, auto&) { request.num_kv_blocks = 511; },
       ErrorCode::kResourceExhausted},
      // a block of 16 tokens: K and V, 30 layers, 2 of 3 KV heads of 64, bf16
      {"room for 0 block(s) of 16 tokens, but one sequence of 8192 tokens needs 512: no length fits, or raise "
       "--kv-cache-memory-bytes to 125829120 bytes (245760 bytes a block",
       [](auto& request, auto&) { request.kv_cache_memory_bytes = 1000; }, ErrorCode::kResourceExhausted},
      {"--max-model-len 64 fits, or raise --kv-cache-memory-bytes to 125829120 bytes",
       [](auto& request, auto&) { request.kv_cache_memory_bytes = 1000000; }, ErrorCode::kResourceExhausted},
      {"the strongest that all ranks have for bf16 is avx2",
       [](auto& request, auto& hellos) {
         hellos[0].best_isa_bf16 = Isa::kAvx2;
         request.isa = Isa::kAvx512;
       }},
      {"--isa avx512_bf16",
       [](auto& request, auto&) {
         request.dtype = DType::kF32;
         request.isa = Isa::kAvx512Bf16;
       }},
      {"MiB too little",
       [](auto& request, auto& hellos) {
         request.max_model_len = 256;
         for (auto& hello : hellos) hello.free_memory_bytes = 200ULL << 20;
       },
       ErrorCode::kResourceExhausted},
      {"30", [](auto& request, auto&) { request.layout.stages = {29}; }},
      {"names 2 stages, pp is 1",
       [](auto& request, auto&) {
         request.layout.stages = {29, 2};
       }},
      {"shares",
       [](auto& request, auto&) {
         request.layout.shares = {1, 2, 3};
       }},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.says);
    ClusterRequest request = toy_request(2, 1);
    request.max_model_len = 0;
    auto hellos = toy_hellos(2, 2);
    c.change(request, hellos);
    try {
      make_cluster_plan(request, toy_config(), hellos, 1);
      EXPECT_EQ(c.says, "");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), c.code) << error.what();
      EXPECT_NE(std::string(error.what()).find(c.says), std::string::npos) << error.what();
      EXPECT_NE(c.says, "") << error.what();
    }
  }
}

TEST(MakeClusterPlan, RefusesLayoutsThatTheModelCannotBeCutInto) {
  for (const auto& [tp, pp, says] : {std::tuple(10, 1, "10"), std::tuple(1, 31, "30"), std::tuple(2, 31, "30")}) {
    try {
      make_cluster_plan(toy_request(tp, pp), toy_config(), toy_hellos(tp * pp, tp * pp), 1);
      ADD_FAILURE() << tp << " x " << pp;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace chorale::coordinator
