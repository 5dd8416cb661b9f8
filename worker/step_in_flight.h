// A step that was given to a device and is not answered yet: what its outcome needs once the device is done. The stage
// runner keeps at most two, and the one before them for its last event; their memory and events are used again.
#pragma once

#include <chrono>
#include <optional>
#include <vector>

#include "parallel/step_plan.h"
#include "worker/device_sampler.h"
#include "worker/device_spans.h"
#include "worker/pinned_arena.h"

namespace chorale::worker {

/// What a step leaves for the coordinator.
struct StepOutcome {
  std::optional<parallel::StepResult> result;   // from the last stage's leader
  std::optional<parallel::StageReport> report;  // from each stage's leader
};

struct StepInFlight {
  explicit StepInFlight(const DeviceStream& where) {
    if (where) {
      answers.emplace(*where.device);
      spans.emplace(where);
    }
  }
  /// Of the next step, given to the device after `earlier` (nullptr: none was), which must not begin another before
  /// this is finished.
  void begin(const parallel::StepPlan& plan, const StepInFlight* earlier) {
    previous = earlier;
    step = plan.step;
    allowed = std::chrono::milliseconds(plan.deadline_ms);
    deadline = Deadline::after(allowed);
    outcome = {};
    samples.clear();
    num_ids = 0;
    done = nullptr;
    if (answers) answers->reset();
  }

  const StepInFlight* previous = nullptr;
  uint64_t step = 0;
  std::chrono::milliseconds allowed{0};  // from when the step before it was done
  Deadline deadline = Deadline::after(allowed);
  StepOutcome outcome;                           // but for what the device still computes
  int64_t num_ids = 0;                           // of those, that go to stage 0
  std::vector<DeviceSampler::Sampling> samples;  // one for each slab of logits
  std::optional<PinnedArena> answers;            // of a device
  std::optional<DeviceSpans> spans;              // likewise
  Event* done = nullptr;                         // of spans; nullptr: the outcome is complete
};

}  // namespace chorale::worker
