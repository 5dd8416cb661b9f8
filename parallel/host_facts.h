// What this host has: cores that the process may use and memory that is free. Workers say it in their hello; `plan` and
// `doctor` show it.
#pragma once

#include <cstdint>
#include <string>

namespace chorale::parallel {

struct HostFacts {
  std::string host_name;
  int num_cores = 1;               // in the affinity of this process
  uint64_t free_memory_bytes = 0;  // MemAvailable, or what is left below the cgroup's limit
};
HostFacts read_host_facts();

/// Resident memory of this process (VmRSS).
uint64_t resident_bytes();

}  // namespace chorale::parallel
