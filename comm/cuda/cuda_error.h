// From the CUDA runtime's status to this project's errors. Called by everything in comm/cuda and by host code of
// kernels, their launches included.
#pragma once

#include <cuda_runtime_api.h>
#include <sched.h>

#include "comm/base/deadline.h"
#include "comm/base/error.h"

namespace chorale {

/// Throws what `status` means, naming `call`; forgets the runtime's last error, so that the next call does not report
/// it again. Error{kResourceExhausted} for memory, else Error{kSystem}; after a sticky error the message says that this
/// process has lost its device.
[[noreturn]] void fail_cuda(cudaError_t status, const char* call);
inline void check_cuda(cudaError_t status, const char* call) {
  if (status != cudaSuccess) fail_cuda(status, call);
}

/// Such an error stays: every later call fails, and only a new process gets the device back.
bool is_sticky(cudaError_t status);

/// Calls query() until it answers cudaSuccess, and meanwhile(expired) now and then, yielding the core in between; that
/// throws to end the wait. Throws what check_cuda throws.
template <typename Query, typename Meanwhile>
void await_cuda(const Query& query, const Meanwhile& meanwhile, Deadline deadline, const char* call) {
  for (unsigned polls = 0;; ++polls) {
    const cudaError_t status = query();
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) fail_cuda(status, call);
    cudaGetLastError();  // the runtime may remember "not ready" as the last error
    if (polls % 16 == 15) meanwhile(deadline.expired());
    sched_yield();
  }
}

}  // namespace chorale
