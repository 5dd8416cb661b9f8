#include "worker/device_spans.h"

namespace chorale::worker {

Event& DeviceSpans::record() {
  if (num_used_ == events_.size()) events_.push_back(where_.device->make_event(EventTiming::kOn));
  Event& event = *events_[num_used_++];
  where_.stream->record(event);
  return event;
}

void DeviceSpans::start() {
  num_used_ = 0;
  spans_.clear();
  record();
}

void DeviceSpans::begin(TimeKind kind) {
  spans_.push_back({kind, num_used_, num_used_});
  record();
}

void DeviceSpans::end() {
  spans_.back().end = num_used_;
  record();
}

Event& DeviceSpans::stop() { return record(); }

std::chrono::nanoseconds DeviceSpans::gap_after(const DeviceSpans& earlier) const {
  return events_[0]->since(*earlier.events_[earlier.num_used_ - 1]);
}

DeviceSpans::Times DeviceSpans::read() const {
  Times times{.compute = events_[num_used_ - 1]->since(*events_[0]), .others = {}};
  for (const Span& span : spans_) {
    const auto taken = events_[span.end]->since(*events_[span.begin]);
    times.others.of(span.kind) += taken;
    times.compute -= taken;
  }
  return times;
}

}  // namespace chorale::worker
