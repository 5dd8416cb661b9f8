// How long the parts of a step took on a device, from events in its stream: the host's clock would see only how long
// it takes to queue them. The stage runner has one for each step in flight; for StageReport only. What a graph
// communicates inside itself counts as computing.
#pragma once

#include <memory>
#include <vector>

#include "comm/base/device.h"
#include "worker/layers/step.h"

namespace chorale::worker {

/// Thread: the rank's compute thread.
class DeviceSpans final : public SpanRecorder {
 public:
  explicit DeviceSpans(const DeviceStream& where) : where_(where) {}

  void start();  // the step's first work comes after it, once the host has prepared that
  void begin(TimeKind kind) override;
  void end() override;
  Event& stop();  // all of the step's work is given; the event is reached when it is done

  /// Compute is what is neither waited nor communicated. REQUIRES: stop()'s event is reached.
  struct Times {
    std::chrono::nanoseconds compute{0};
    StepTimes others;
  };
  Times read() const;
  /// How long the device had neither's work, between the end of `earlier` and the start of this. REQUIRES: as read(),
  /// of both, on one stream.
  std::chrono::nanoseconds gap_after(const DeviceSpans& earlier) const;

 private:
  Event& record();
  struct Span {
    TimeKind kind;
    size_t begin, end;  // of events_
  };
  const DeviceStream where_;
  std::vector<std::unique_ptr<Event>> events_;  // used again by the next step
  size_t num_used_ = 0;
  std::vector<Span> spans_;
};

}  // namespace chorale::worker
