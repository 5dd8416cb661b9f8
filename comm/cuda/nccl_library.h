// NCCL as a table of its functions, found at run time and never linked: the program starts without it, and ranks
// exchange activations over MPI where it is not. Called by nccl_transport.cc, by what a worker says of itself and by
// doctor; builds without CUDA, since the emulator's tests use it with a stand-in.
#pragma once

#include <string>

#include "comm/base/device.h"
#include "comm/base/error.h"
#include "comm/cuda/nccl_types.h"

// Every function of NCCL that the project calls: the member, nccl##name, and its arguments. Not among them:
// ncclCommAbort, which has been seen to hang; a process whose communicator failed leaves instead.
#define CHORALE_NCCL_FUNCTIONS(X)                                                                               \
  X(Result, get_version, GetVersion, (int*))                                                                    \
  X(Result, get_unique_id, GetUniqueId, (UniqueId*))                                                            \
  X(Result, comm_init_rank_config, CommInitRankConfig, (Comm*, int num_ranks, UniqueId, int rank, Config*))     \
  X(Result, comm_get_async_error, CommGetAsyncError, (Comm, Result*))                                           \
  X(Result, comm_finalize, CommFinalize, (Comm))                                                                \
  X(Result, comm_destroy, CommDestroy, (Comm))                                                                  \
  X(const char*, get_error_string, GetErrorString, (Result))                                                    \
  X(const char*, get_last_error, GetLastError, (Comm))                                                          \
  X(Result, group_start, GroupStart, ())                                                                        \
  X(Result, group_end, GroupEnd, ())                                                                            \
  X(Result, send, Send, (const void* from, size_t count, int type, int peer, Comm, Stream))                     \
  X(Result, recv, Recv, (void* to, size_t count, int type, int peer, Comm, Stream))                             \
  X(Result, broadcast, Broadcast, (const void* from, void* to, size_t count, int type, int root, Comm, Stream)) \
  X(Result, all_gather, AllGather, (const void* from, void* to, size_t count, int type, Comm, Stream))          \
  X(Result, all_reduce, AllReduce, (const void* from, void* to, size_t count, int type, int operation, Comm, Stream))

namespace chorale {

namespace nccl {
#define CHORALE_FUNCTION(result, member, name, arguments) using name##Function = result(*) arguments;
CHORALE_NCCL_FUNCTIONS(CHORALE_FUNCTION)
#undef CHORALE_FUNCTION
}  // namespace nccl

struct Nccl {
#define CHORALE_MEMBER(result, member, name, arguments) nccl::name##Function member = nullptr;
  CHORALE_NCCL_FUNCTIONS(CHORALE_MEMBER)
#undef CHORALE_MEMBER
  std::string path;     // of the library
  std::string version;  // "2.28.9"
};

/// Looked for once; the library stays open. Thread: any.
const Result<Nccl>& find_nccl();

/// The table of one given library file. Its version must be 2.18 or newer.
Result<Nccl> load_nccl(const std::string& path);

/// The version that a rank on `kind` could talk over; "" where there is none. The emulator has one where
/// CHORALE_NCCL_PATH names it, for tests: a library that works on the emulator's streams.
std::string nccl_version(DeviceKind kind);
/// Why there is none, in words for the user; "" where there is one.
std::string nccl_problem(DeviceKind kind);

}  // namespace chorale
