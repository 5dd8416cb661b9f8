#include "coordinator/commands/plan_figures.h"

#include <cxxopts.hpp>

#include "comm/base/error.h"
#include "coordinator/commands/parse_arguments.h"
#include "parallel/host_facts.h"

namespace chorale::coordinator {
namespace {

using parallel::MachineFigures;
using parallel::NvLink;

constexpr double kGiga = 1e9, kTera = 1e12;
constexpr const char* kFlags[] = {"nodes",        "gpus-per-node",    "network",     "network-latency", "nvlink",
                                  "memory-bytes", "memory-bandwidth", "matrix-rate", "mean-context"};

std::optional<double> positive(const cxxopts::ParseResult& arguments, const std::string& flag, double most) {
  if (arguments.count(flag) == 0) return std::nullopt;
  const auto value = arguments[flag].as<double>();
  if (!(value > 0) || value > most)
    fail(ErrorCode::kInvalidArgument, "--{} {}: expected more than 0 and at most {:g}", flag, value, most);
  return value;
}

std::optional<int> count_of(const cxxopts::ParseResult& arguments, const std::string& flag) {
  if (arguments.count(flag) == 0) return std::nullopt;
  const int value = arguments[flag].as<int>();
  if (value < 1 || value > parallel::kMostPlannedRanks)
    fail(ErrorCode::kInvalidArgument, "--{} {}: expected 1 to {}", flag, value, parallel::kMostPlannedRanks);
  return value;
}

std::optional<NvLink> nvlink_of(const cxxopts::ParseResult& arguments) {
  if (arguments.count("nvlink") == 0) return std::nullopt;
  const auto& text = arguments["nvlink"].as<std::string>();
  if (text == "yes") return NvLink::kYes;
  if (text == "no") return NvLink::kNo;
  fail(ErrorCode::kInvalidArgument, "--nvlink {}: one of yes, no", text);
}

/// The GPUs that are here, all taken for the first one's kind.
MachineFigures found_gpus(const DeviceEntry* gpus, std::optional<NvLink> nvlink) {
  if (gpus == nullptr) fail(ErrorCode::kUnsupported, "this build is without GPU support; name a GPU with --gpu");
  const DeviceSurvey survey = gpus->survey();
  if (survey.num_devices == 0)
    fail(ErrorCode::kUnsupported, "{}; {}, or name a GPU with --gpu", survey.problem, survey.advice);
  const auto facts = gpus->facts(0);
  if (!facts) fail(ErrorCode::kUnsupported, "{}; name a GPU with --gpu", facts.failure().message);
  const parallel::GpuFigures* known = parallel::find_gpu_by_device_name(facts->name);
  if (known == nullptr)
    fail(ErrorCode::kUnsupported,
         "the GPU {} has no row of figures: name the nearest with --gpu (see --help), with --memory-bytes {}, and "
         "--memory-bandwidth and --matrix-rate where you know them",
         facts->name, facts->memory.total_bytes);
  if (!nvlink && facts->num_nvlinks && known->nvlink_gb_per_s > 0)
    nvlink = *facts->num_nvlinks > 0 ? NvLink::kYes : NvLink::kNo;
  MachineFigures machine = machine_of(*known, nvlink.value_or(known->usual_nvlink));
  machine.memory_bytes = facts->memory.free_bytes;
  machine.arithmetic = facts->arithmetic;
  machine.ranks_per_node = survey.num_devices;
  return machine;
}

/// Nodes like this host. What is given is not measured.
MachineFigures cpu_nodes(std::optional<double> bandwidth, std::optional<double> rate, const WorkerModule& worker) {
  const parallel::HostFacts facts = parallel::read_host_facts();
  parallel::HostSpeed speed;
  speed.memory_bytes = facts.free_memory_bytes;
  std::string source = "figures given";
  if (!bandwidth || !rate) {
    const parallel::Isa isa = parallel::best_isa(DType::kBF16);
    const MachineSpeed measured = worker.measure_machine(facts.num_cores, isa);
    speed.memory_bytes_per_s = measured.read_gbps * kGiga;
    speed.f32_ops_per_s = measured.f32_peak_gops * kGiga;
    speed.bf16_ops_per_s =
        isa == parallel::Isa::kAvx512Bf16 ? measured.bf16_peak_gops * kGiga : measured.f32_peak_gops * kGiga;
    source = "this host's speed, measured now";
  } else {
    speed.memory_bytes_per_s = speed.f32_ops_per_s = speed.bf16_ops_per_s = 1;  // replaced by what is given
  }
  MachineFigures machine = machine_of(speed);
  machine.source = source;
  return machine;
}

}  // namespace

void add_figure_options(cxxopts::Options& options) {
  std::string names;
  for (const parallel::GpuFigures& gpu : parallel::known_gpus())
    names += (names.empty() ? "" : ", ") + std::string(gpu.name);
  const auto number = [] { return cxxopts::value<double>(); };
  options.add_options("Recommendation")                                                                          //
      ("recommend", "estimate every tp x pp on these machines and recommend one")                                //
      ("gpu", "figures of this GPU: " + names + "; without it, of this machine", cxxopts::value<std::string>())  //
      ("nodes", "machines (1)", cxxopts::value<int>())                                                           //
      ("gpus-per-node,ranks-per-node", "ranks of each, one a GPU (the GPUs found here, else 1)",
       cxxopts::value<int>())                                                                            //
      ("network", "Gbit/s of a node's network, all ports together (GPUs 100, CPUs 10)", number())        //
      ("network-latency", "us of one message between nodes (12 from 100 Gbit/s on, else 30)", number())  //
      ("nvlink", "yes or no: whether the GPUs of a node meet over it (as usual for the GPU)",
       cxxopts::value<std::string>())                                                                            //
      ("gpu-memory-bytes,memory-bytes", "of a GPU, or of a CPU node, as in 80G", cxxopts::value<std::string>())  //
      ("memory-bandwidth", "GB/s of a GPU, or of a CPU node (measured)", number())                               //
      ("matrix-rate", "dense TFLOP/s of a GPU, or of a CPU node (measured)", number())                           //
      ("mean-context", "tokens that a sequence holds on average (half of --max-model-len, at most 1024)",
       cxxopts::value<int>());
}

bool wants_advice(const cxxopts::ParseResult& arguments) {
  if (arguments.count("recommend") != 0 || arguments.count("gpu") != 0) return true;
  for (const char* flag : kFlags)
    if (arguments.count(flag) != 0)
      fail(ErrorCode::kInvalidArgument, "--{} describes machines for a recommendation: give --recommend or --gpu",
           flag);
  return false;
}

int mean_context_of(const cxxopts::ParseResult& arguments) {
  if (arguments.count("mean-context") == 0) return 0;
  const int value = arguments["mean-context"].as<int>();
  if (value < 1) fail(ErrorCode::kInvalidArgument, "--mean-context {}: expected at least 1", value);
  return value;
}

MachineFigures read_figures(const cxxopts::ParseResult& arguments, std::optional<DeviceKind> device,
                            const DeviceEntry* gpus, const WorkerModule& worker) {
  const std::optional<NvLink> nvlink = nvlink_of(arguments);
  const std::optional<double> bandwidth = positive(arguments, "memory-bandwidth", 1e6);
  const std::optional<double> rate = positive(arguments, "matrix-rate", 1e6);
  const bool is_named = arguments.count("gpu") != 0;
  if (device == DeviceKind::kEmulator)
    fail(ErrorCode::kInvalidArgument, "--device emulator has no figures; use --device cpu, or name a GPU with --gpu");
  if (is_named && device == DeviceKind::kCpu)
    fail(ErrorCode::kInvalidArgument, "--gpu and --device cpu contradict each other");
  const bool on_gpus = is_named || device.value_or(best_device()) == DeviceKind::kCuda;
  if (nvlink && !on_gpus) fail(ErrorCode::kInvalidArgument, "--nvlink needs GPUs; name one with --gpu");

  MachineFigures machine;
  if (is_named) {
    const parallel::GpuFigures& gpu = parallel::gpu_figures(arguments["gpu"].as<std::string>());
    machine = machine_of(gpu, nvlink.value_or(gpu.usual_nvlink));
  } else {
    machine = on_gpus ? found_gpus(gpus, nvlink) : cpu_nodes(bandwidth, rate, worker);
  }
  machine.num_nodes = count_of(arguments, "nodes").value_or(1);
  machine.ranks_per_node = count_of(arguments, "gpus-per-node").value_or(machine.ranks_per_node);
  if (bandwidth) machine.memory_bytes_per_s = *bandwidth * kGiga;
  if (rate && on_gpus) machine.bf16_ops_per_s = *rate * kTera;
  if (rate && !on_gpus) machine.bf16_ops_per_s = machine.f32_ops_per_s = *rate * kTera;
  if (arguments.count("memory-bytes") != 0)
    machine.memory_bytes = parse_bytes("memory-bytes", arguments["memory-bytes"].as<std::string>());
  if (const auto network = positive(arguments, "network", 1e6)) machine.between = parallel::network_of(*network);
  if (const auto latency = positive(arguments, "network-latency", 1e6)) machine.between.latency_s = *latency / 1e6;
  machine.validate();
  return machine;
}

}  // namespace chorale::coordinator
