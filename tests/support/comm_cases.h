// Collectives over size x count x in-place with known answers, as one function a rank runs on any Communicator: the
// unit tests run it on threads, the MPI tests on processes, and both compare the returned checksum across backends.
#pragma once

#include <cstdint>

#include "comm/communicator.h"

namespace chorale::comm {

enum class CaseSize { kQuick, kFull };

/// Runs every operation and compares its result with a serial one. Returns a checksum of all results (equal on all
/// ranks, backends and runs). Throws std::runtime_error that names the case and the first wrong index.
uint64_t run_communicator_cases(Communicator& comm, CaseSize size);

}  // namespace chorale::comm
