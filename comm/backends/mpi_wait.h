// How this project waits for MPI: only nonblocking calls, tested in a loop that yields the core, until a deadline.
// Included by the MPI backend and the session.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C++ bindings were removed from MPI long ago, and would need a library of their own
#include <mpi.h>
#include <sched.h>

#include <span>
#include <string>

#include "comm/base/deadline.h"
#include "comm/base/error.h"

namespace chorale::comm {

/// Throws Error{kPeerLost} with MPI's own words unless rc is MPI_SUCCESS.
void check_mpi(int rc, const char* call);

/// Returns once all requests are done. `meanwhile()` runs between tests. Throws Error{kDeadlineExceeded} naming `what`:
/// the requests are then still under way and their buffers must outlive the process's MPI.
template <typename Meanwhile>
void wait_mpi(std::span<MPI_Request> requests, Deadline deadline, const char* what, Meanwhile meanwhile) {
  for (unsigned polls = 0;; ++polls) {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE),
              "MPI_Testall");
    if (done != 0) return;
    if (polls % 16 == 15 && deadline.expired())
      fail(ErrorCode::kDeadlineExceeded, "the deadline passed while waiting for {}", what);
    meanwhile(polls);
    sched_yield();
  }
}

inline void wait_mpi(std::span<MPI_Request> requests, Deadline deadline, const char* what) {
  wait_mpi(requests, deadline, what, [](unsigned) {});
}

}  // namespace chorale::comm
