#include "comm/backends/checks.h"

#include "comm/base/error.h"

namespace chorale::comm {

void check_peer(const Communicator& comm, int peer, int tag) {
  CHECK_GE(peer, 0);
  CHECK_LT(peer, comm.size());
  CHECK_GE(tag, 0);
}

void check_message_size(size_t sent_bytes, size_t expected_bytes, int source, int tag) {
  if (sent_bytes != expected_bytes)
    fail(ErrorCode::kInvalidArgument, "rank {} sent {} bytes with tag {} where {} were expected", source, sent_bytes,
         tag, expected_bytes);
}

void check_offsets(std::span<const size_t> offsets, int num_parts, size_t total) {
  CHECK_EQ(offsets.size(), static_cast<size_t>(num_parts) + 1);
  CHECK_EQ(offsets.front(), 0u);
  CHECK_EQ(offsets.back(), total);
  for (size_t i = 1; i < offsets.size(); ++i) CHECK_LE(offsets[i - 1], offsets[i]);
}

void check_partials(const TreeSchedule& schedule, const Communicator& comm, size_t partials_size, size_t count) {
  CHECK_EQ(schedule.first_node.size(), static_cast<size_t>(comm.size()) + 1);
  const int local_nodes = schedule.first_node[comm.rank() + 1] - schedule.first_node[comm.rank()];
  CHECK_EQ(partials_size, local_nodes * count);
}

int check_members(const std::vector<int>& members, const Communicator& comm) {
  int place = -1;
  for (size_t i = 0; i < members.size(); ++i) {
    CHECK_GE(members[i], 0);
    CHECK_LT(members[i], comm.size());
    if (i > 0) CHECK_LT(members[i - 1], members[i]);
    if (members[i] == comm.rank()) place = static_cast<int>(i);
  }
  CHECK_GE(place, 0);
  return place;
}

}  // namespace chorale::comm
