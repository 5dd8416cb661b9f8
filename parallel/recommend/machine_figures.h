// What machines can do, in figures: memory, bandwidth, arithmetic and links of one kind of rank. From vendors'
// datasheets, from flags, or measured; the layout advisor computes with them. Nothing here measures anything or opens a
// device.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "comm/base/device.h"
#include "comm/base/dtype.h"

namespace chorale::parallel {

/// A way for bytes between ranks.
struct LinkFigures {
  std::string name;        // "NVLink"
  double latency_s = 0;    // of one message of a collective, program to program
  double bytes_per_s = 0;  // in one direction; into one rank inside a node, into one node between nodes
};

/// Whose memory, bandwidth and arithmetic the figures name. What a node owns, its ranks share equally.
enum class Owner : uint8_t { kRank, kNode };

struct MachineFigures {
  std::string name;    // "H100-SXM"
  std::string source;  // "NVIDIA H100 datasheet"
  int num_nodes = 1;
  int ranks_per_node = 1;  // rank r is on node r / ranks_per_node
  Owner owner = Owner::kRank;
  DeviceKind device = DeviceKind::kCpu;
  std::string arithmetic = "cpu";  // of the numerics class: "sm_90"
  uint64_t memory_bytes = 0;
  double memory_bytes_per_s = 0;
  double bf16_ops_per_s = 0;  // dense; a multiply-add is two
  double f32_ops_per_s = 0;
  double layer_launch_s = 0;  // of a layer's kernels, at least, however little they do
  LinkFigures inside;         // a node
  LinkFigures between;        // nodes

  int num_ranks() const { return num_nodes * ranks_per_node; }
  double ops_per_s(DType compute) const { return compute == DType::kF32 ? f32_ops_per_s : bf16_ops_per_s; }
  /// "2 nodes x 4 H100-SXM: 80.0 GB, 3350 GB/s, ..."
  std::string to_string() const;
  /// Throws Error{kInvalidArgument} naming the figure that is not positive, or the counts that are out of range.
  void validate() const;
};
constexpr int kMostPlannedRanks = 1024;

enum class NvLink : uint8_t { kNo, kYes };

/// One kind of GPU. Memory and rates as datasheets count them: powers of ten, without sparsity.
struct GpuFigures {
  std::string_view name;         // what --gpu takes
  std::string_view device_name;  // what the driver calls it
  std::string_view arithmetic;
  double memory_gb;
  double memory_gb_per_s;
  double bf16_tflops;
  double f32_tflops;
  double nvlink_gb_per_s;  // into one GPU; 0: it has none
  NvLink usual_nvlink;     // whether every GPU of a usual node reaches every other that way
  int pcie_generation;     // of 16 lanes
  std::string_view source;
};
std::span<const GpuFigures> known_gpus();
/// Throws Error{kInvalidArgument} that lists the known names. Case and dashes do not count.
const GpuFigures& gpu_figures(std::string_view name);
/// The one that the driver names so, or nullptr.
const GpuFigures* find_gpu_by_device_name(std::string_view device_name);

/// One rank on each GPU of one node; over PCIe for kNo. Throws Error{kInvalidArgument} for kYes where there is none.
MachineFigures machine_of(const GpuFigures& gpu, NvLink nvlink);

/// A node of CPU ranks; what it has is its ranks' together.
struct HostSpeed {
  uint64_t memory_bytes = 0;
  double memory_bytes_per_s = 0;
  double bf16_ops_per_s = 0;
  double f32_ops_per_s = 0;
};
MachineFigures machine_of(const HostSpeed& host);

/// The network of a node with `gbit_per_s` in all: RDMA's latency from 100 Gbit/s on, TCP's below.
LinkFigures network_of(double gbit_per_s);

}  // namespace chorale::parallel
