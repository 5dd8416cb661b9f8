// Ranks as threads with chosen buffer sizes, so that tests can make every message longer than a buffer. Others use
// make_threads(size) of comm/communicator.h.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace chorale::comm {

struct ThreadGroupOptions {
  int num_ranks = 1;
  size_t slot_bytes = 0;     // 0: chosen by the number of ranks; a multiple of 64
  size_t channel_bytes = 0;  // 0: chosen by the number of ranks; a power of two
};
std::vector<std::unique_ptr<Communicator>> make_threads(const ThreadGroupOptions& options);

}  // namespace chorale::comm
