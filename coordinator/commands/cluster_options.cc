#include "coordinator/commands/cluster_options.h"

#include <charconv>
#include <cmath>
#include <sstream>

#include <cxxopts.hpp>

#include "comm/base/error.h"
#include "coordinator/commands/parse_arguments.h"

namespace chorale::coordinator {
namespace {

/// "10,12,8" as numbers.
template <typename T>
std::vector<T> parse_list(const std::string& flag, const std::string& text) {
  std::vector<T> values;
  std::istringstream in(text);
  for (std::string item; std::getline(in, item, ',');) {
    T value{};
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), value);
    if (error != std::errc() || end != item.data() + item.size())
      fail(ErrorCode::kInvalidArgument, "--{} {}: '{}' is not a number; expected a list as in 2,1,1", flag, text, item);
    values.push_back(value);
  }
  return values;
}

std::optional<DType> parse_dtype(const std::string& name) {
  if (name == "auto") return std::nullopt;
  if (name == "f32" || name == "float32" || name == "float") return DType::kF32;
  if (name == "bf16" || name == "bfloat16") return DType::kBF16;
  if (name == "f16" || name == "float16" || name == "half") return DType::kF16;
  fail(ErrorCode::kInvalidArgument, "--dtype {}: one of auto, f32, bf16, f16", name);
}

int checked_int(const cxxopts::ParseResult& arguments, const std::string& flag, int low, int high) {
  const int value = arguments[flag].as<int>();
  if (value < low || value > high)
    fail(ErrorCode::kInvalidArgument, "--{} {}: expected {} to {}", flag, value, low, high);
  return value;
}

std::optional<parallel::CudaGraphs> read_cuda_graphs(const cxxopts::ParseResult& arguments) {
  const bool is_off = arguments.count("no-cuda-graphs") != 0 || arguments.count("enforce-eager") != 0;
  const bool is_on = arguments.count("cuda-graphs") != 0;
  if (is_off && is_on)
    fail(ErrorCode::kInvalidArgument, "--cuda-graphs contradicts --no-cuda-graphs and --enforce-eager");
  if (!is_off && !is_on) return std::nullopt;
  return is_off ? parallel::CudaGraphs::kOff : parallel::CudaGraphs::kOn;
}

ClusterRequest read_request(const cxxopts::ParseResult& arguments) {
  constexpr int kMostRanks = 4096;
  constexpr int kMostTokens = 1 << 20;
  ClusterRequest request;
  if (arguments.count("model") == 0)
    fail(ErrorCode::kInvalidArgument, "--model is required: a Hugging Face folder or a .gguf file");
  request.model_path = arguments["model"].as<std::string>();
  request.dtype = parse_dtype(arguments["dtype"].as<std::string>());
  request.layout.tp = checked_int(arguments, "tensor-parallel-size", 1, kMostRanks);
  request.layout.pp = checked_int(arguments, "pipeline-parallel-size", 1, kMostRanks);
  request.layout.stages = parse_list<int>("stages", arguments["stages"].as<std::string>());
  request.layout.shares = parse_list<double>("shares", arguments["shares"].as<std::string>());
  request.max_model_len = checked_int(arguments, "max-model-len", 0, 1 << 28);
  request.max_num_seqs = checked_int(arguments, "max-num-seqs", 1, 1 << 16);
  request.max_num_batched_tokens = checked_int(arguments, "max-num-batched-tokens", 1, kMostTokens);
  request.kv_cache_memory_bytes =
      parse_bytes("kv-cache-memory-bytes", arguments["kv-cache-memory-bytes"].as<std::string>());
  request.num_kv_blocks = checked_int(arguments, "num-kv-blocks", 0, 1 << 30);
  request.threads = checked_int(arguments, "threads", 0, 1024);
  if (arguments.count("isa") != 0) request.isa = parallel::isa_from_string(arguments["isa"].as<std::string>());
  request.device = parse_device(arguments["device"].as<std::string>());
  request.gemm = gemm_from_string(arguments["gemm"].as<std::string>());
  request.answer = parallel::answer_from_string(arguments["answer"].as<std::string>());
  request.comm = parallel::device_comm_from_string(arguments["comm"].as<std::string>());
  request.cuda_graphs = read_cuda_graphs(arguments);
  request.control_host = arguments["control-host"].as<std::string>();
  request.control_port = checked_int(arguments, "control-port", 0, 65535);
  return request;
}

}  // namespace

std::optional<DeviceKind> parse_device(const std::string& name) {
  if (name == "auto") return std::nullopt;
  return device_kind_from_string(name);
}

void add_cluster_options(cxxopts::Options& options) {
  const ClusterRequest request;
  const auto number = [](int value) { return cxxopts::value<int>()->default_value(std::to_string(value)); };
  const auto text = [](const std::string& value = "") { return cxxopts::value<std::string>()->default_value(value); };
  options.add_options("Model")                                                                                   //
      ("model", "Hugging Face folder or .gguf file", cxxopts::value<std::string>())                              //
      ("served-model-name", "name clients use; may be given several times", cxxopts::value<std::string>())       //
      ("chat-template", "Jinja file instead of the model's own", text())                                         //
      ("dtype", "auto, f32, bf16 or (GPUs) f16: type of GEMM inputs and KV cache", text("auto"))                 //
      ("device", "auto, cpu, cuda, or emulator (runs the GPU's kernels on the CPU, for tests)", text("auto"))    //
      ("isa", "at most this instruction set: scalar, avx2, avx512, avx512_bf16", cxxopts::value<std::string>())  //
      ("gemm", "own, or cublaslt for column-parallel weights on GPUs: one answer for each tp, not across them",
       text("own"))  //
      ("answer", "one: the same bits in every layout and batch; fast (GPUs): cuBLASLt's and NCCL's own order",
       text("one"))                                                                            //
      ("comm", "auto, nccl, mpi: what ranks on GPUs exchange activations over", text("auto"))  //
      ("cuda-graphs", "GPUs replay decode steps that they recorded at start (the default)")    //
      ("no-cuda-graphs", "every kernel is launched by itself")                                 //
      ("enforce-eager", "the same as --no-cuda-graphs")                                        //
      ("seed", "of the seeds drawn for jobs that give none", cxxopts::value<std::string>());
  options.add_options("Layout")                                                                              //
      ("tp,tensor-parallel-size", "--tensor-parallel-size: ranks that share each layer's heads", number(1))  //
      ("pp,pipeline-parallel-size", "--pipeline-parallel-size: stages that share the layers", number(1))     //
      ("stages", "layers of each stage by hand, as in 10,12,8", text())                                      //
      ("shares", "weight of each tp rank, as in 2,1,1", text())                                              //
      ("threads", "compute threads of each rank (0: cores / ranks on its host)", number(0))                  //
      ("control-host", "address of the control link (chosen)", text())                                       //
      ("control-port", "port of the control link (0: chosen)", number(0));
  options.add_options("Scheduling")                                                             //
      ("max-model-len", "tokens of prompt and answer together (0: the model's)", number(0))     //
      ("max-num-seqs", "sequences running at a time", number(request.max_num_seqs))             //
      ("max-num-batched-tokens", "tokens of one step", number(request.max_num_batched_tokens))  //
      ("kv-cache-memory-bytes",
       "KV cache of each rank, as in 2G (0: a quarter of free memory; on GPUs nine tenths of what weights leave)",
       text("0"))                                                                                       //
      ("num-kv-blocks", "KV blocks of 16 tokens (0: by memory)", number(0))                             //
      ("scheduling-policy", "fcfs or priority", text("fcfs"))                                           //
      ("max-waiting-jobs", "longer queues are answered 429", number(EngineOptions{}.max_waiting_jobs))  //
      ("slow-reader-timeout", "seconds that a client may take nothing before its job ends",
       number(static_cast<int>(EngineOptions{}.slow_reader_timeout.count() / 1000)))  //
      ("enable-prefix-caching", "reuse KV blocks of equal prefixes (the default)")    //
      ("no-enable-prefix-caching", "compute every prompt anew")                       //
      ("log-level", "trace, debug, info (serve's default), warn (the others'), error, off", text());
}

ClusterOptions read_cluster_options(const cxxopts::ParseResult& arguments) {
  ClusterOptions options;
  options.request = read_request(arguments);
  options.engine.policy = scheduling_policy_from_string(arguments["scheduling-policy"].as<std::string>());
  if (arguments.count("enable-prefix-caching") != 0 && arguments.count("no-enable-prefix-caching") != 0)
    fail(ErrorCode::kInvalidArgument, "--enable-prefix-caching and --no-enable-prefix-caching contradict each other");
  options.engine.prefix_caching =
      arguments.count("no-enable-prefix-caching") != 0 ? PrefixCaching::kOff : PrefixCaching::kOn;
  options.engine.max_waiting_jobs = checked_int(arguments, "max-waiting-jobs", 1, 1 << 24);
  options.engine.slow_reader_timeout = std::chrono::seconds(checked_int(arguments, "slow-reader-timeout", 1, 86400));
  options.served_model_names = texts_of(arguments, "served-model-name");
  options.chat_template = arguments["chat-template"].as<std::string>();
  if (arguments.count("seed") != 0) options.seed = seed_of(arguments);
  if (const auto level = arguments["log-level"].as<std::string>(); !level.empty())
    options.log_level = log_level_from_string(level);
  return options;
}

}  // namespace chorale::coordinator
