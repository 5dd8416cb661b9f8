// Decides a world: from what the user asked for and what each worker says of itself, who holds what, how many KV
// blocks (memory_budget.h), in which numerics class. Pure but for reading the checkpoint's configuration; `chorale
// plan` calls it without any worker.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/device.h"
#include "comm/base/dtype.h"
#include "parallel/cluster_plan.h"
#include "parallel/layout.h"
#include "parallel/numerics.h"

namespace chorale::coordinator {

/// What multiplies with column-parallel weights on a GPU.
enum class Gemm : uint8_t { kOwn, kCublasLt };
std::string_view to_string(Gemm gemm);
/// Throws Error{kInvalidArgument} that lists the valid names.
Gemm gemm_from_string(std::string_view name);

/// What the user asked for. Zero and empty mean "choose".
struct ClusterRequest {
  std::string model_path;
  std::optional<DType> dtype;  // of GEMM inputs and cache; none: f32 for F32 checkpoints, else bf16; f16: on GPUs only
  parallel::LayoutRequest layout;
  int64_t max_model_len = 0;           // tokens; 0: the model's positions
  int max_num_seqs = 64;               // sequences that hold KV blocks at a time
  int max_num_batched_tokens = 512;    // rows of one step; more: faster prefill, slower first tokens of others
  uint64_t kv_cache_memory_bytes = 0;  // of each rank; 0: see make_cluster_plan
  int64_t num_kv_blocks = 0;           // overrides kv_cache_memory_bytes
  int threads = 0;                     // of each rank; 0: max(1, cores / ranks on the host)
  std::optional<parallel::Isa> isa;    // at most this instruction set
  std::optional<DeviceKind> device;    // none: each rank takes the best of its host
  Gemm gemm = Gemm::kOwn;              // kCublasLt: every rank must have the same version of it
  parallel::Answer answer = parallel::Answer::kOne;  // kFast: on GPUs, with cuBLASLt; `gemm` does not count
  std::optional<parallel::DeviceComm> comm;          // none: parallel/device_comm.h chooses
  std::optional<parallel::CudaGraphs> cuda_graphs;   // none: where they can be had
  std::string control_host;                          // address of the control link
  int control_port = 0;
};

/// Of GEMM inputs and cache: what was asked for, or as the checkpoint has it.
DType compute_type(const ClusterRequest& request, const parallel::ModelConfig& config);

/// Refuses options that are out of range, or that this model cannot have. Throws Error{kInvalidArgument}.
void check_options(const ClusterRequest& request, const parallel::ModelConfig& config);

/// The matrix products that its workers need. They look for cuBLASLt, and say which version they have, only then:
/// opening it takes time.
inline Gemm needed_gemm(const ClusterRequest& request) {
  return request.answer == parallel::Answer::kFast ? Gemm::kCublasLt : request.gemm;
}

/// Refuses what can be refused before any worker starts: a checkpoint that is missing, corrupt or incomplete, a layout
/// that the model cannot be cut into, options out of range. Throws Error.
parallel::ModelConfig check_request(const ClusterRequest& request);

/// `hellos`: one a rank, in rank order. KV blocks are the same on every rank: the fewest that any has room for, where a
/// rank's room is kv_cache_memory_bytes or else a quarter of its host's free memory over the host's ranks (on a GPU
/// nine tenths of what is free there over the ranks that share it, less weights, embedding and scratch); never more
/// than max_num_seqs sequences of max_model_len need. Throws Error: kInvalidArgument (layout, lengths, builds that
/// differ), kResourceExhausted (memory, or too few blocks for one sequence; says by how much and which length fits).
parallel::ClusterPlan make_cluster_plan(const ClusterRequest& request, const parallel::ModelConfig& config,
                                        const std::vector<parallel::WorkerHello>& hellos, uint64_t epoch);

/// What the user should know of a plan that is not quite what was asked for: a line each.
std::vector<std::string> remarks(const ClusterRequest& request, const parallel::ClusterPlan& plan,
                                 const std::vector<parallel::WorkerHello>& hellos);

/// What a worker on this machine would say, were it rank `rank` of `num_ranks` that all run here; `gemm`: needs what it
/// names. Throws what open_device does.
parallel::WorkerHello invented_hello(int rank, int num_ranks, std::optional<DeviceKind> device = DeviceKind::kCpu,
                                     Gemm gemm = Gemm::kOwn);

}  // namespace chorale::coordinator
