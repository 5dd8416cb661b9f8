#include "parallel/recommend/machine_figures.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

constexpr double kGiga = 1e9, kTera = 1e12;

// Dense rates: where a datasheet gives the rate with sparsity, half of it. NVLink: half of the total of both
// directions. The H100 PCIe's NVLink joins two cards by bridges only, so a node usually goes over PCIe.
constexpr GpuFigures kGpus[] = {
    // name, the driver's name, arithmetic, GB, GB/s, bf16 and f32 TFLOP/s, NVLink GB/s, usual, PCIe, source
    {"A100-40", "NVIDIA A100-SXM4-40GB", "sm_80", 40, 1555, 312, 19.5, 300, NvLink::kYes, 4, "NVIDIA A100 datasheet"},
    {"A100-80", "NVIDIA A100-SXM4-80GB", "sm_80", 80, 2039, 312, 19.5, 300, NvLink::kYes, 4, "NVIDIA A100 datasheet"},
    {"H100-SXM", "NVIDIA H100 80GB HBM3", "sm_90", 80, 3350, 989, 67, 450, NvLink::kYes, 5, "NVIDIA H100 datasheet"},
    {"H100-PCIe", "NVIDIA H100 PCIe", "sm_90", 80, 2000, 756, 51, 300, NvLink::kNo, 5, "NVIDIA H100 datasheet"},
    {"H200", "NVIDIA H200", "sm_90", 141, 4800, 989, 67, 450, NvLink::kYes, 5, "NVIDIA H200 datasheet"},
    {"B200", "NVIDIA B200", "sm_100", 180, 8000, 2250, 80, 900, NvLink::kYes, 5, "NVIDIA HGX B200 datasheet"},
    {"L40S", "NVIDIA L40S", "sm_89", 48, 864, 362, 91.6, 0, NvLink::kNo, 4, "NVIDIA L40S datasheet"},
    {"L4", "NVIDIA L4", "sm_89", 24, 300, 121, 30.3, 0, NvLink::kNo, 4, "NVIDIA L4 datasheet"},
    {"RTX-4090", "NVIDIA GeForce RTX 4090", "sm_89", 24, 1008, 165, 82.6, 0, NvLink::kNo, 4, "NVIDIA Ada whitepaper"},
};

// Latencies of one message inside a collective, launch included: reported for NCCL where GPUs meet (8 GPUs on NVLink
// take about 20 us for a small all-reduce, three rounds), measured here for shared memory (docs/results/comm.md). The
// network's are usual values for RDMA and TCP.
constexpr double kNvLinkLatency = 6e-6, kPcieLatency = 8e-6, kSharedMemoryLatency = 0.5e-6;
constexpr double kRdmaLatency = 12e-6, kTcpLatency = 30e-6, kLeastRdmaGbit = 100;
// Of a two-rank all-reduce of 64 KiB to 1 MiB through shared memory (docs/results/comm.md).
constexpr double kSharedMemoryBandwidth = 12e9;
// Eight dependent kernels a layer, of at least 2.5 us each inside a graph.
constexpr double kGpuLayerLaunch = 20e-6;
constexpr double kDefaultGpuNetwork = 100, kDefaultHostNetwork = 10;  // Gbit/s

/// Letters in lower case and digits: "RTX 4090" is "rtx-4090".
std::string plain(std::string_view name) {
  std::string letters;
  for (const unsigned char letter : name)
    if (std::isalnum(letter) != 0) letters += static_cast<char>(std::tolower(letter));
  return letters;
}

/// 16 lanes, one direction: 2 GB/s a lane in generation 4, doubling with each.
LinkFigures pcie(int generation) {
  return {fmt::format("PCIe {}", generation), kPcieLatency, generation >= 5 ? 64 * kGiga : 32 * kGiga};
}

std::string link_text(const LinkFigures& link) {
  return fmt::format("{} {:.4g} GB/s, {:.3g} us", link.name, link.bytes_per_s / kGiga, link.latency_s * 1e6);
}

}  // namespace

std::span<const GpuFigures> known_gpus() { return kGpus; }

const GpuFigures& gpu_figures(std::string_view name) {
  std::string names;
  for (const GpuFigures& gpu : kGpus) {
    if (plain(gpu.name) == plain(name)) return gpu;
    names += (names.empty() ? "" : ", ") + std::string(gpu.name);
  }
  fail(ErrorCode::kInvalidArgument, "--gpu {}: known are {}", name, names);
}

const GpuFigures* find_gpu_by_device_name(std::string_view device_name) {
  const auto found = std::ranges::find(kGpus, device_name, &GpuFigures::device_name);
  return found == std::end(kGpus) ? nullptr : &*found;
}

MachineFigures machine_of(const GpuFigures& gpu, NvLink nvlink) {
  if (nvlink == NvLink::kYes && gpu.nvlink_gb_per_s == 0)
    fail(ErrorCode::kInvalidArgument, "--nvlink yes: {} has no NVLink", gpu.name);
  MachineFigures machine;
  machine.name = gpu.name;
  machine.source = gpu.source;
  machine.owner = Owner::kRank;
  machine.device = DeviceKind::kCuda;
  machine.arithmetic = gpu.arithmetic;
  machine.memory_bytes = static_cast<uint64_t>(gpu.memory_gb * kGiga);
  machine.memory_bytes_per_s = gpu.memory_gb_per_s * kGiga;
  machine.bf16_ops_per_s = gpu.bf16_tflops * kTera;
  machine.f32_ops_per_s = gpu.f32_tflops * kTera;
  machine.layer_launch_s = kGpuLayerLaunch;
  machine.inside = nvlink == NvLink::kYes ? LinkFigures{"NVLink", kNvLinkLatency, gpu.nvlink_gb_per_s * kGiga}
                                          : pcie(gpu.pcie_generation);
  machine.between = network_of(kDefaultGpuNetwork);
  return machine;
}

MachineFigures machine_of(const HostSpeed& host) {
  MachineFigures machine;
  machine.name = "CPU";
  machine.owner = Owner::kNode;
  machine.memory_bytes = host.memory_bytes;
  machine.memory_bytes_per_s = host.memory_bytes_per_s;
  machine.bf16_ops_per_s = host.bf16_ops_per_s;
  machine.f32_ops_per_s = host.f32_ops_per_s;
  machine.inside = {"shared memory", kSharedMemoryLatency, kSharedMemoryBandwidth};
  machine.between = network_of(kDefaultHostNetwork);
  return machine;
}

LinkFigures network_of(double gbit_per_s) {
  return {fmt::format("{:.4g} Gbit/s network", gbit_per_s), gbit_per_s >= kLeastRdmaGbit ? kRdmaLatency : kTcpLatency,
          gbit_per_s * kGiga / 8};
}

std::string MachineFigures::to_string() const {
  const std::string_view what = owner == Owner::kRank ? std::string_view(name) : "CPU ranks";
  const std::string counts = num_nodes == 1 ? fmt::format("{} x {}", ranks_per_node, what)
                                            : fmt::format("{} nodes x {} {}", num_nodes, ranks_per_node, what);
  std::string text =
      fmt::format("{}: {:.1f} GB, {:.4g} GB/s, {:.4g} TFLOP/s bf16 a {}", counts, memory_bytes / kGiga,
                  memory_bytes_per_s / kGiga, bf16_ops_per_s / kTera, owner == Owner::kRank ? "rank" : "node");
  if (ranks_per_node > 1) text += "; " + link_text(inside);
  if (num_nodes > 1) text += "; " + link_text(between);
  return text;
}

void MachineFigures::validate() const {
  const auto positive = [](std::string_view what, double value) {
    if (!(value > 0) || value > 1e18)
      fail(ErrorCode::kInvalidArgument, "{} of the machine is {}: expected more than 0", what, value);
  };
  if (num_nodes < 1 || ranks_per_node < 1 || int64_t{num_nodes} * ranks_per_node > kMostPlannedRanks)
    fail(ErrorCode::kInvalidArgument, "{} nodes of {} ranks: expected 1 to {} ranks in all", num_nodes, ranks_per_node,
         kMostPlannedRanks);
  positive("memory", static_cast<double>(memory_bytes));
  positive("memory bandwidth", memory_bytes_per_s);
  positive("bf16 rate", bf16_ops_per_s);
  positive("f32 rate", f32_ops_per_s);
  positive("bandwidth inside a node", inside.bytes_per_s);
  positive("bandwidth between nodes", between.bytes_per_s);
}

}  // namespace chorale::parallel
