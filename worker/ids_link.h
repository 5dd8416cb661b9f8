// IdsLink: how sampled ids get from the leader of the last stage to the ranks of stage 0 over a transport for device
// memory (NCCL): in the order of streams, into stage 0's table of last ids, while the host waits for nothing. What
// sampled_tokens.h does for the host's memory.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "comm/device_transport.h"
#include "parallel/step_plan.h"
#include "worker/ops/context.h"

namespace chorale::worker {

/// Both sides call it for every step that samples, in step order. Thread: the rank's compute thread.
class IdsLink {
 public:
  /// `transport`: {ranks of stage 0, the leader}. `max_ids` of a step; `depth` steps may be under way. All that it
  /// takes must outlive it.
  IdsLink(comm::DeviceTransport& transport, OpContext& op, const DeviceStream& where, int64_t max_ids, int depth);
  ~IdsLink();
  IdsLink(const IdsLink&) = delete;
  IdsLink& operator=(const IdsLink&) = delete;

  /// The leader: where the next step's ids go, in the order of op's stream, before send().
  int32_t* buffer();  // [max_ids]
  void send(int64_t count, Deadline deadline);

  /// Stage 0: a step's ids will come for these slots of the table. Throws what the transport throws.
  void expect(uint64_t step, std::vector<int32_t> slots, int32_t* table, Deadline deadline);
  /// Puts what came for steps up to `step` into the table, in the order of op's stream, which waits for it.
  void keep(uint64_t step, int32_t* table);

 private:
  struct Lap {
    Tensor ids;  // i32 [max_ids]
    std::unique_ptr<Event> is_full, is_free;
  };
  struct Expected {
    uint64_t step = 0;
    size_t lap = 0;
    std::vector<int32_t> slots;
  };
  void travel(Lap& lap, int64_t count, Deadline deadline);
  Lap& current() { return laps_[next_]; }

  comm::DeviceTransport& transport_;
  OpContext& op_;
  const int64_t max_ids_;
  std::vector<Lap> laps_;  // in turn
  size_t next_ = 0;
  std::deque<Expected> expected_;
  const std::unique_ptr<Stream> stream_;  // goes before the memory that it works on
};

}  // namespace chorale::worker
