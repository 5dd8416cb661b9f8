#include "parallel/host_facts.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <string_view>

namespace chorale::parallel {
namespace {

/// The value in bytes of a "Key:  123 kB" line.
std::optional<uint64_t> read_kib_line(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string name, rest; file >> name; std::getline(file, rest)) {
    uint64_t kib = 0;
    if (name == key && file >> kib) return kib * 1024;
  }
  return std::nullopt;
}

std::optional<uint64_t> read_number(const char* path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // absent, or "max"
}

}  // namespace

HostFacts read_host_facts() {
  HostFacts facts;
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) == 0) facts.host_name = name.data();
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) facts.num_cores = std::max(1, CPU_COUNT(&allowed));
  facts.free_memory_bytes = read_kib_line("/proc/meminfo", "MemAvailable:").value_or(0);
  const auto limit = read_number("/sys/fs/cgroup/memory.max");
  const auto used = read_number("/sys/fs/cgroup/memory.current");
  if (limit && used) facts.free_memory_bytes = std::min(facts.free_memory_bytes, *limit > *used ? *limit - *used : 0);
  return facts;
}

uint64_t resident_bytes() { return read_kib_line("/proc/self/status", "VmRSS:").value_or(0); }

}  // namespace chorale::parallel
