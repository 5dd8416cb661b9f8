// What `chorale doctor` finds: one line a fact. And its part about GPUs: support built in, driver, each device, and the
// libraries that GPU workers use.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "comm/base/device.h"
#include "comm/base/shared_library.h"

namespace chorale::coordinator {

enum class Verdict : uint8_t { kOk, kWarn, kFail };
inline std::string_view to_string(Verdict verdict) {
  return verdict == Verdict::kOk ? "ok" : verdict == Verdict::kWarn ? "warn" : "fail";
}

struct Finding {
  Verdict verdict;
  std::string subject;
  std::string fact;
  std::string advice;  // empty when there is nothing to do
};

/// `gpus`: the table's entry, nullptr where GPU support is not built in. A host without GPUs gets one line of them and
/// no failure: the CPU computes there. A GPU that cannot be opened is a failure. Each library gets a line everywhere.
std::vector<Finding> check_gpus(const DeviceEntry* gpus, std::span<const LibraryEntry> libraries);

}  // namespace chorale::coordinator
