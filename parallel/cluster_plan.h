// ClusterPlan: what the coordinator decided about a world before its first step; sent to every worker over the control
// link. With step_plan.h it is the whole protocol between coordinator and workers. Immutable once made.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "comm/base/bytes.h"
#include "comm/base/error.h"
#include "parallel/device_comm.h"
#include "parallel/layout.h"
#include "parallel/model_config.h"
#include "parallel/numerics.h"

namespace chorale::parallel {

/// What a worker says of itself when it joins.
struct WorkerHello {
  int rank = 0;
  int num_ranks = 1;
  std::string host;
  int ranks_on_host = 1;
  int num_cores = 1;
  uint64_t free_memory_bytes = 0;
  Isa best_isa_f32 = Isa::kScalar;
  Isa best_isa_bf16 = Isa::kScalar;
  std::string cpu_model;
  std::string build_id;
  int64_t process_id = 0;
  std::string device = "cpu";             // what it computes on
  std::string device_arithmetic = "cpu";  // of its numerics class (Device::arithmetic)
  std::string device_name;                // "NVIDIA H200"
  uint64_t device_free_bytes = 0;         // of a device with memory of its own; 0: the host's
  std::string device_identity;            // ranks of a host that say the same share its memory (Device::identity)
  std::string device_bus_id;              // ... are on one GPU, or on parts of one (Device::bus_id)
  std::string cublaslt_version;           // "13.1.0"; empty: it has none that it can use, or did not look
  std::string cublaslt_problem;           // why it has none; empty where it did not look
  std::string nccl_version;               // "2.28.9"; likewise
  std::string nccl_problem;
  // Why it computes on the CPU although nobody said that it should; kNone: it does not.
  DeviceAbsence gpu_absence = DeviceAbsence::kNone;
  std::string gpu_problem;  // the same in words, and what to do

  Bytes encode() const;
  static WorkerHello decode(std::span<const std::byte> bytes);
};

/// What all ranks compute on (WorkerHello::device_arithmetic): alike, or no numerics class holds for them (N10). Throws
/// Error{kInvalidArgument} that names a rank that differs. `hellos`: one a rank.
const std::string& common_arithmetic(const std::vector<WorkerHello>& hellos);

/// Whether devices replay decode steps that they recorded at start.
enum class CudaGraphs : uint8_t { kOff, kOn };

/// For ranks to load their weights: how long the coordinator, and ranks that are done, wait for the slowest.
constexpr std::chrono::minutes kLoadDeadline{30};

struct ClusterPlan {
  uint64_t epoch = 0;
  std::string model_path;  // as each worker opens it
  ModelConfig config;
  Layout layout;
  NumericsClass numerics;
  int64_t num_kv_blocks = 0;  // the same on every rank
  int64_t max_model_len = 0;  // tokens
  int max_num_seqs = 0;
  int max_num_batched_tokens = 0;
  int threads = 1;   // compute threads of each rank
  int spin_us = 20;  // 0 where ranks x threads exceed a host's cores
  DeviceComm device_comm = DeviceComm::kMpi;
  std::string nccl_version;  // of kNccl
  CudaGraphs cuda_graphs = CudaGraphs::kOn;

  Bytes encode() const;
  /// Throws Error{kCorrupt}.
  static ClusterPlan decode(std::span<const std::byte> bytes);
  /// Throws Error{kInvalidArgument} with the field and what was expected.
  void validate() const;
  std::string to_string() const;  // a line about the world, then the shard map, a line a rank
};

/// What a worker answers when its weights are loaded.
struct WorkerReady {
  double load_seconds = 0;
  uint64_t copied_bytes = 0;  // read out of the checkpoint
  uint64_t weight_bytes = 0;  // kept, packed
  uint64_t kv_bytes = 0;
  uint64_t resident_bytes = 0;  // of the process

  Bytes encode() const;
  static WorkerReady decode(std::span<const std::byte> bytes);
};

/// Why a worker cannot go on: its last words. Not whether it is gone; mostly it tells of others.
struct WorkerFault {
  ErrorCode code = ErrorCode::kSystem;
  std::string reason;

  /// A peer is gone or silent.
  bool lacks_peers() const { return code == ErrorCode::kPeerLost || code == ErrorCode::kDeadlineExceeded; }
  Bytes encode() const;
  static WorkerFault decode(std::span<const std::byte> bytes);
};

}  // namespace chorale::parallel
