// Whether all ranks captured their graphs. A graph of one rank waits for those of its group, so either all replay or
// none does; who could not says why, and the world goes on without. Used by the stage runner at start.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"

namespace chorale::worker {

/// What each rank says went wrong, by rank, cut to about 400 characters; "" where nothing did. Collective over `world`,
/// host memory. Throws Error{kDeadlineExceeded | kPeerLost}.
std::vector<std::string> share_failures(comm::Communicator& world, const std::string& own, Deadline deadline);

/// One line for all of them: who, why, and what to do; "" where nothing went wrong.
std::string describe_failures(const std::vector<std::string>& failures);

}  // namespace chorale::worker
