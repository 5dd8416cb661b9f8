// The choices a user has about scheduling, with their names on the command line. Read by the engine's options and the
// scheduler.
#pragma once

#include <cstdint>
#include <string_view>

namespace chorale::coordinator {

enum class SchedulingPolicy : uint8_t { kFcfs, kPriority };
enum class PrefixCaching : uint8_t { kOff, kOn };

std::string_view to_string(SchedulingPolicy policy);  // "fcfs", "priority"
std::string_view to_string(PrefixCaching caching);    // "off", "on"
/// Throws Error{kInvalidArgument} that lists the valid names.
SchedulingPolicy scheduling_policy_from_string(std::string_view name);

}  // namespace chorale::coordinator
