// What every backend checks at its door, so that a wrong call fails alike everywhere. Included by backends only.
#pragma once

#include <span>
#include <vector>

#include "comm/communicator.h"

namespace chorale::comm {

/// Tags from here on belong to the backends (they pass segment names and the like).
constexpr int kFirstInternalTag = 32000;

void check_peer(const Communicator& comm, int peer, int tag);
/// Throws Error{kInvalidArgument} when the two sides of a message disagree about its size.
void check_message_size(size_t sent_bytes, size_t expected_bytes, int source, int tag);
/// CHECKs that offsets has num_parts + 1 ascending entries that end in `total`.
void check_offsets(std::span<const size_t> offsets, int num_parts, size_t total);
/// CHECKs that the schedule has one run a rank and this rank's partials have `count` elements for each of its nodes.
void check_partials(const TreeSchedule& schedule, const Communicator& comm, size_t partials_size, size_t count);
/// CHECKs that members ascend, lie in the group and include this rank. Returns this rank's place among them.
int check_members(const std::vector<int>& members, const Communicator& comm);

}  // namespace chorale::comm
