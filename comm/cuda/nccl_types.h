// The few types and numbers of NCCL's interface that the project uses, declared anew from its documentation (NCCL user
// guide, "NCCL API"), so that its callers build where there is no CUDA. nccl_types_check.cc compares them with nccl.h
// where there is one.
#pragma once

#include <cstddef>

namespace chorale::nccl {

using Comm = struct CommOpaque*;
using Stream = void*;  // cudaStream_t
using Result = int;

constexpr Result kSuccess = 0, kRemoteError = 6, kInProgress = 7;
constexpr int kInt8 = 0, kFloat32 = 7;  // ncclDataType_t
constexpr int kSum = 0;                 // ncclRedOp_t

/// Names a communicator that is about to be made. Passed by value.
struct UniqueId {
  char internal[128] = {};
};

constexpr int kUndefined = -2147483647 - 1;  // NCCL_CONFIG_UNDEF_INT
/// The configuration of version 2.18: newer libraries read `size` and `version` and take defaults for the rest.
struct Config {
  size_t size = sizeof(Config);
  unsigned magic = 0xcafebeef;
  unsigned version = 21800;
  int blocking = kUndefined;
  int cga_cluster_size = kUndefined;
  int min_ctas = kUndefined;
  int max_ctas = kUndefined;
  const char* net_name = nullptr;
  int split_share = kUndefined;
};

}  // namespace chorale::nccl
