#include "coordinator/make_cluster_plan.h"

#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "comm/base/version.h"
#include "comm/cuda/cublaslt_library.h"
#include "comm/cuda/nccl_library.h"
#include "coordinator/memory_budget.h"
#include "parallel/architecture.h"
#include "parallel/checkpoint/checkpoint.h"
#include "parallel/host_facts.h"

namespace chorale::coordinator {
namespace {

using parallel::ClusterPlan;
using parallel::Isa;
using parallel::WorkerHello;

constexpr int kSpinUs = 20;

/// The strongest instruction set that every rank has; a weaker one when asked for.
Isa common_isa(const ClusterRequest& request, const std::vector<WorkerHello>& hellos, DType compute) {
  Isa common = Isa::kAvx512Bf16;
  for (const WorkerHello& hello : hellos)
    common = std::min(common, compute == DType::kBF16 ? hello.best_isa_bf16 : hello.best_isa_f32);
  if (!request.isa) return common;
  const bool needs_bf16 = *request.isa == Isa::kAvx512Bf16 && compute != DType::kBF16;
  if (*request.isa > common || needs_bf16)
    fail(ErrorCode::kInvalidArgument, "--isa {}: the strongest that all ranks have for {} is {}",
         parallel::to_string(*request.isa), to_string(compute), parallel::to_string(common));
  return *request.isa;
}

/// NumericsClass::gemm. A library's order of additions may change with its version, the GPU and the shape of the
/// weight, so that its class names them; with unequal shares the shape would be each rank's own. A fast answer promises
/// nothing, but its class says what it was made with.
std::string common_gemm(const ClusterRequest& request, const std::vector<WorkerHello>& hellos, DType compute) {
  const bool is_fast = request.answer == parallel::Answer::kFast;
  if (needed_gemm(request) == Gemm::kOwn) return "own";
  const std::string_view flag = is_fast ? "--answer fast" : "--gemm cublaslt",
                         instead = is_fast ? "--answer one" : "--gemm own";
  const WorkerHello& first = hellos.front();
  if (first.device == "cpu")
    fail(ErrorCode::kUnsupported, "{}: the ranks compute on the CPU, which has our own GEMM only; use {}", flag,
         instead);
  if (compute == DType::kF32)
    fail(ErrorCode::kUnsupported, "{}: it serves --dtype bf16 and f16, this world computes in {}; use {}", flag,
         to_string(compute), instead);
  if (!request.layout.shares.empty() && !is_fast)
    fail(ErrorCode::kInvalidArgument, "--gemm cublaslt needs equal shares; leave out --shares, or use --gemm own");
  for (const WorkerHello& hello : hellos) {
    if (hello.cublaslt_version.empty())
      fail(ErrorCode::kUnsupported, "{}: rank {} on {}: {} ({} does without it)", flag, hello.rank, hello.host,
           hello.cublaslt_problem.empty() ? fmt::format("it was started without {}", flag) : hello.cublaslt_problem,
           instead);
    if (hello.cublaslt_version != first.cublaslt_version || hello.device_name != first.device_name)
      fail(ErrorCode::kUnsupported, "{}: rank {} on {} has version {} on {}, rank 0 has {} on {}; use {}", flag,
           hello.rank, hello.host, hello.cublaslt_version, hello.device_name, first.cublaslt_version, first.device_name,
           instead);
  }
  std::string device = first.device_name;
  std::ranges::replace(device, ' ', '_');
  return fmt::format("cublaslt-{}/{}/tp={}", first.cublaslt_version, device, request.layout.tp);
}

void check_builds(const std::vector<WorkerHello>& hellos) {
  for (const WorkerHello& hello : hellos)
    if (hello.build_id != hellos.front().build_id)
      fail(ErrorCode::kInvalidArgument, "rank {} on {} runs build {}, rank 0 runs {}: one answer needs one build",
           hello.rank, hello.host, hello.build_id, hellos.front().build_id);
}

int threads_of(const ClusterRequest& request, const std::vector<WorkerHello>& hellos) {
  if (request.threads > 0) return request.threads;
  int threads = std::numeric_limits<int>::max();
  for (const WorkerHello& hello : hellos)
    threads = std::min(threads, std::max(1, hello.num_cores / hello.ranks_on_host));
  return threads;
}

}  // namespace

std::string_view to_string(Gemm gemm) { return gemm == Gemm::kOwn ? "own" : "cublaslt"; }

Gemm gemm_from_string(std::string_view name) {
  for (Gemm gemm : {Gemm::kOwn, Gemm::kCublasLt})
    if (to_string(gemm) == name) return gemm;
  fail(ErrorCode::kInvalidArgument, "--gemm {}: one of own, cublaslt", name);
}

void check_options(const ClusterRequest& request, const parallel::ModelConfig& config) {
  const auto at_least_one = [](std::string_view flag, int64_t value) {
    if (value < 1) fail(ErrorCode::kInvalidArgument, "{} {}: expected at least 1", flag, value);
  };
  at_least_one("--max-num-seqs", request.max_num_seqs);
  at_least_one("--max-num-batched-tokens", request.max_num_batched_tokens);
  if (request.num_kv_blocks < 0)
    fail(ErrorCode::kInvalidArgument, "--num-kv-blocks {}: expected at least 1", request.num_kv_blocks);
  if (request.threads < 0 || request.threads > 1024)
    fail(ErrorCode::kInvalidArgument, "--threads {}: expected 1 to 1024, or 0 to choose", request.threads);
  if (request.max_model_len < 0 || request.max_model_len > config.max_positions)
    fail(ErrorCode::kInvalidArgument, "--max-model-len {}: the model has {} positions", request.max_model_len,
         config.max_positions);
  if (request.dtype && *request.dtype != DType::kF32 && *request.dtype != DType::kBF16 && *request.dtype != DType::kF16)
    fail(ErrorCode::kInvalidArgument, "--dtype {}: one of auto, f32, bf16, f16", to_string(*request.dtype));
}

DType compute_type(const ClusterRequest& request, const parallel::ModelConfig& config) {
  return request.dtype.value_or(config.stored_dtype == DType::kF32 ? DType::kF32 : DType::kBF16);
}

parallel::ModelConfig check_request(const ClusterRequest& request) {
  const parallel::Checkpoint checkpoint = parallel::Checkpoint::open(request.model_path);
  const parallel::ModelConfig config = parallel::load_model_config(checkpoint);
  check_options(request, config);
  make_layout(config, request.layout);
  parallel::check_weights(checkpoint, config);
  return config;
}

ClusterPlan make_cluster_plan(const ClusterRequest& request, const parallel::ModelConfig& config,
                              const std::vector<WorkerHello>& hellos, uint64_t epoch) {
  CHECK(!hellos.empty());
  check_options(request, config);
  check_builds(hellos);
  ClusterPlan plan;
  plan.epoch = epoch;
  plan.model_path = request.model_path;
  plan.config = config;
  plan.layout = make_layout(config, request.layout);
  CHECK_EQ(hellos.size(), static_cast<size_t>(plan.layout.num_ranks()));
  plan.numerics.compute = compute_type(request, config);
  plan.numerics.cache = plan.numerics.compute;
  plan.numerics.device = common_arithmetic(hellos);
  if (plan.numerics.compute == DType::kF16 && plan.numerics.device == "cpu")
    fail(ErrorCode::kUnsupported,
         "--dtype f16 is for GPUs; CPUs compute in bf16 or f32: use --dtype bf16, or --dtype f32");
  plan.numerics.isa = common_isa(request, hellos, plan.numerics.compute);
  plan.numerics.answer = request.answer;
  plan.numerics.gemm = common_gemm(request, hellos, plan.numerics.compute);
  plan.numerics.attention_leaves = num_attention_leaves(config);
  plan.numerics.mlp_leaves = num_mlp_leaves(config);
  plan.numerics.build_id = hellos.front().build_id;
  plan.max_model_len = request.max_model_len > 0 ? request.max_model_len : config.max_positions;
  plan.max_num_seqs = request.max_num_seqs;
  plan.max_num_batched_tokens = request.max_num_batched_tokens;
  plan.threads = threads_of(request, hellos);
  plan.spin_us = kSpinUs;
  plan.cuda_graphs = request.cuda_graphs.value_or(parallel::CudaGraphs::kOn);
  plan.device_comm = choose_device_comm(request.comm, hellos).comm;
  if (plan.device_comm == parallel::DeviceComm::kNccl) plan.nccl_version = hellos.front().nccl_version;
  for (const WorkerHello& hello : hellos)
    if (hello.ranks_on_host * plan.threads > hello.num_cores) plan.spin_us = 0;
  const KvBudget budget = kv_budget(request, plan, hellos);
  plan.num_kv_blocks = request.num_kv_blocks > 0 ? request.num_kv_blocks : std::min(budget.affordable, budget.needed);
  check_memory(request, plan, hellos);
  plan.validate();
  return plan;
}

std::vector<std::string> remarks(const ClusterRequest& request, const ClusterPlan& plan,
                                 const std::vector<WorkerHello>& hellos) {
  std::vector<std::string> lines;
  if (const std::string why = choose_device_comm(request.comm, hellos).why_not_nccl; !why.empty()) lines.push_back(why);
  if (request.cuda_graphs != parallel::CudaGraphs::kOn) return lines;
  if (plan.numerics.device == "cpu")
    lines.emplace_back("--cuda-graphs: the ranks compute on the CPU, where there are none");
  else if (plan.layout.tp > 1 && plan.device_comm == parallel::DeviceComm::kMpi)
    lines.emplace_back(
        "--cuda-graphs: none are recorded, since with tp > 1 over MPI the host takes part in every sum; over NCCL they "
        "are");
  return lines;
}

WorkerHello invented_hello(int rank, int num_ranks, std::optional<DeviceKind> wanted, Gemm gemm) {
  const parallel::HostFacts facts = parallel::read_host_facts();
  WorkerHello hello;
  hello.rank = rank;
  hello.num_ranks = num_ranks;
  hello.host = facts.host_name;
  hello.ranks_on_host = num_ranks;
  hello.num_cores = facts.num_cores;
  hello.free_memory_bytes = facts.free_memory_bytes;
  hello.best_isa_f32 = parallel::best_isa(DType::kF32);
  hello.best_isa_bf16 = parallel::best_isa(DType::kBF16);
  hello.cpu_model = parallel::cpu_model_name();
  hello.build_id = kBuildId;
  const DeviceKind device = wanted.value_or(best_device());
  if (device == DeviceKind::kCpu) return hello;
  const std::unique_ptr<Device> opened = open_device(device, rank);
  hello.device = to_string(device);
  hello.device_arithmetic = opened->arithmetic();
  hello.device_name = opened->name();
  hello.device_identity = opened->identity();
  hello.device_bus_id = opened->bus_id();
  if (gemm == Gemm::kCublasLt) {
    hello.cublaslt_version = cublaslt_version(device);
    hello.cublaslt_problem = cublaslt_problem(device);
  }
  if (num_ranks > 1) {
    hello.nccl_version = nccl_version(device);
    hello.nccl_problem = nccl_problem(device);
  }
  if (device == DeviceKind::kCuda) hello.device_free_bytes = opened->memory().free_bytes;
  return hello;
}

}  // namespace chorale::coordinator
