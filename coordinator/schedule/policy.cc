#include "coordinator/schedule/policy.h"

#include "comm/base/error.h"

namespace chorale::coordinator {

std::string_view to_string(SchedulingPolicy policy) { return policy == SchedulingPolicy::kFcfs ? "fcfs" : "priority"; }
std::string_view to_string(PrefixCaching caching) { return caching == PrefixCaching::kOn ? "on" : "off"; }

SchedulingPolicy scheduling_policy_from_string(std::string_view name) {
  for (SchedulingPolicy policy : {SchedulingPolicy::kFcfs, SchedulingPolicy::kPriority})
    if (name == to_string(policy)) return policy;
  fail(ErrorCode::kInvalidArgument, "--scheduling-policy {}: one of fcfs, priority", name);
}

}  // namespace chorale::coordinator
