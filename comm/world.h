// Makes the communicator of a whole world from the MPI session: shared memory on one host, MPI between hosts, or both.
// The backends register themselves in a table (name, priority, when they fit); tests and benches walk over it. Called
// once by a worker's start.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/registry.h"
#include "comm/communicator.h"
#include "comm/mpi_session.h"

namespace chorale::comm {

struct WorldOptions {
  int threads_per_rank = 1;
  uint64_t epoch = 1;
  Deadline deadline = Deadline::after(std::chrono::seconds(60));  // for building the world
  std::string backend;                                            // "" takes the best; else a name from the table
  size_t shared_memory_limit_bytes = SIZE_MAX;                    // tests: pretend that /dev/shm is this small
  std::vector<int> host_of;  // tests: pretend that ranks are on these hosts; empty = as they are
};

struct WorldBackend {
  std::string_view name;
  int priority = 0;  // the highest that fits is taken
  bool (*fits)(const WorldMap& map) = nullptr;
  std::unique_ptr<Communicator> (*make)(std::unique_ptr<Communicator> mpi_world, const WorldMap& map,
                                        const WorldOptions& options) = nullptr;
};

/// Collective over the session's ranks. Throws Error{kInvalidArgument} for a backend that does not exist or does not
/// fit, naming those that do. The session must outlive the communicator.
std::unique_ptr<Communicator> make_world(const MpiSession& session, const WorldOptions& options);

}  // namespace chorale::comm
