// The owner of MPI: initialises it when the process was started by mpirun or srun, knows where the ranks are, and
// finalises it. Made once by the command that runs ranks. It moves one small text before other connections exist;
// everything else is a Communicator's (comm/world.h).
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "comm/base/deadline.h"

namespace chorale::comm {

/// Whether a launcher started this process as one of several ranks (or of an unknown number).
bool started_by_launcher();

/// Where the ranks of a world are.
struct WorldMap {
  int rank = 0;
  int size = 1;
  std::string host_name;
  std::vector<int> host_of{0};  // [size]: hosts are numbered by their first rank; ranks of one host can share memory
  int num_hosts() const;
  int local_rank() const;                 // among the ranks of this host
  int ranks_on_host() const;              // of this host
  std::vector<int> ranks_beside() const;  // the ranks of this host, ascending
};

/// Thread: MPI is used by one thread at a time (MPI_THREAD_SERIALIZED); start and destroy on the same one.
class MpiSession {
 public:
  struct Options {
    std::chrono::seconds deadline{120};  // of Init and of Finalize; then the process leaves with code 3
  };
  /// Under a launcher: widens the CPU affinity to the allocation, sets Open MPI's yield_when_idle unless the user did,
  /// initialises MPI. Alone: a world of one that never touches MPI. Throws Error{kSystem}.
  static std::unique_ptr<MpiSession> start(const Options& options);
  static std::unique_ptr<MpiSession> start() { return start(Options{}); }
  /// Finalises MPI, unless an exception is on its way: then the other ranks may never come, and mpirun ends them.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  bool uses_mpi() const { return uses_mpi_; }
  const WorldMap& map() const { return map_; }
  int rank() const { return map_.rank; }
  int size() const { return map_.size; }

  /// Rank 0's text on every rank (the coordinator's address and secret, before the control link). Collective. Throws
  /// Error{kDeadlineExceeded}.
  std::string broadcast_text(const std::string& text, Deadline deadline) const;

 private:
  MpiSession(const Options& options, bool uses_mpi);
  Options options_;
  bool uses_mpi_;
  int exceptions_at_start_;
  WorldMap map_;
};

}  // namespace chorale::comm
