#include "comm/base/device.h"

#include <array>

#include "comm/base/error.h"

namespace chorale {
namespace {
constexpr std::array<std::string_view, 3> kNames{"cpu", "cuda", "emulator"};
}  // namespace

std::string_view to_string(DeviceKind kind) { return kNames[static_cast<size_t>(kind)]; }

DeviceKind device_kind_from_string(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<DeviceKind>(i);
  fail(ErrorCode::kInvalidArgument, "unknown device '{}'; one of {}", name, fmt::join(kNames, ", "));
}

void Stream::fail_deadline(std::string_view what) const {
  std::string waiting;
  for (const StreamWatch* watch : watches_)
    if (const std::string text = watch->waiting_for(); !text.empty()) waiting += (waiting.empty() ? "" : "; ") + text;
  fail(ErrorCode::kDeadlineExceeded, "the deadline passed while waiting for {}{}{}", what,
       waiting.empty() ? "" : ", where peers take part: ", waiting);
}

DeviceSurvey survey_of_gpus() {
  const DeviceEntry* cuda = DeviceRegistry::find(to_string(DeviceKind::kCuda));
  if (cuda != nullptr) return cuda->survey();
  return {.absence = DeviceAbsence::kNotBuiltIn,
          .problem = "this program was built without CUDA",
          .advice = "for a GPU build it where nvcc is"};
}

DeviceKind best_device() { return survey_of_gpus().num_devices > 0 ? DeviceKind::kCuda : DeviceKind::kCpu; }

std::unique_ptr<Device> open_device(DeviceKind kind, int index) {
  const DeviceEntry* entry = DeviceRegistry::find(to_string(kind));
  if (entry == nullptr)
    fail(ErrorCode::kUnsupported, "device {} is not built in; built in: {}", to_string(kind), DeviceRegistry::names());
  const DeviceSurvey survey = entry->survey();
  if (survey.num_devices == 0)
    fail(ErrorCode::kUnsupported, "device {}: {}; {}", to_string(kind), survey.problem, survey.advice);
  return entry->open(index % survey.num_devices);
}

}  // namespace chorale
