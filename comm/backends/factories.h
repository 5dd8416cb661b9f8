// Makers of the process backends, for comm/world.cc and for each other. Everybody else uses make_world.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace chorale::comm {

struct SharedMemoryOptions {
  uint64_t epoch = 0;             // in the segment's name
  int busy_threads_on_host = 1;   // ranks x threads: whether spinning pays
  size_t limit_bytes = SIZE_MAX;  // larger segments count as "no room" (tests)
};

/// All ranks of the MPI world. REQUIRES: MPI is initialised.
std::unique_ptr<Communicator> make_mpi_world();

/// Shared memory for `group`, whose ranks are all on this host, or `group` itself (with one warning) where no segment
/// can be had.
std::unique_ptr<Communicator> make_shared_memory(std::unique_ptr<Communicator> group,
                                                 const SharedMemoryOptions& options, Deadline deadline);

/// Shared memory inside a host and `group` between hosts. `host_of` has one entry per rank of `group`. Gives the
/// simpler backend where one suffices.
std::unique_ptr<Communicator> make_hybrid(std::unique_ptr<Communicator> group, const std::vector<int>& host_of,
                                          const SharedMemoryOptions& options, Deadline deadline);

}  // namespace chorale::comm
