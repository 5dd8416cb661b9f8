// Which GPUs this process can use and what they are. Called through the table of devices; opens nothing but in
// gpu_facts.
#pragma once

#include <vector>

#include "comm/base/device.h"

namespace chorale {

/// Tells apart: no driver, a driver without a device, a driver older than the runtime, GPUs older than the kernels, and
/// a driver that fails. Never throws.
DeviceSurvey survey_gpus();

/// The runtime's numbers of the GPUs that the kernels are built for: index of a Device -> ordinal. Throws
/// Error{kSystem}.
std::vector<int> usable_gpus();

/// REQUIRES an index below survey_gpus().num_devices.
Result<DeviceFacts> gpu_facts(int index);

/// The survey that the runtime's answers mean: status and count of cudaGetDeviceCount, version of
/// cudaDriverGetVersion (0: no driver). Apart, so that a machine without a GPU can test it.
DeviceSurvey interpret_survey(int status, int num_devices, int driver_version);

}  // namespace chorale
