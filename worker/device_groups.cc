#include "worker/device_groups.h"

#include <utility>

#include "worker/device_communicator.h"
#include "worker/staged_transport.h"

namespace chorale::worker {

DeviceGroups::DeviceGroups(comm::Communicator& host_group, StageTransports given, parallel::Answer answer,
                           const DeviceStream& where, OpContext& op)
    : transports(std::move(given)),
      staged(where && !transports.group ? make_staged_transport(host_group, *where.device) : nullptr),
      stream(where.stream),
      wrapped(where ? make_device_communicator(
                          host_group, transports.group ? *transports.group : *staged, op,
                          transports.group && answer == parallel::Answer::kFast ? SumOrder::kAny : SumOrder::kTree)
                    : nullptr),
      group(where ? *wrapped : host_group) {
  if (transports.group) stream->add_watch(*transports.group);
}

DeviceGroups::~DeviceGroups() {
  if (transports.group) stream->remove_watch(*transports.group);
}

}  // namespace chorale::worker
