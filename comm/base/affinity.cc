#include "comm/base/affinity.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <string>
#include <string_view>

namespace chorale {
namespace {

constexpr std::array<std::string_view, 7> kLaunchers{"mpirun", "mpiexec", "orterun", "orted",
                                                     "prted",  "prterun", "prte"};

struct Process {
  std::string name;
  pid_t parent = 0;
};

Process look_up(pid_t pid) {
  // "pid (name) state ppid ...": the name may hold spaces and brackets, so it ends at the last bracket.
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  const std::string line{std::istreambuf_iterator<char>(in), {}};
  const size_t open = line.find('(');
  const size_t close = line.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close + 4 > line.size()) return {};
  return {line.substr(open + 1, close - open - 1),
          static_cast<pid_t>(std::strtol(line.c_str() + close + 4, nullptr, 10))};
}

}  // namespace

int available_cores() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  if (sched_getaffinity(0, sizeof(cores), &cores) != 0) return 1;
  return std::max(1, CPU_COUNT(&cores));
}

int widen_affinity_to_allocation() {
  pid_t pid = getppid();
  for (int depth = 0; depth < 8 && pid > 1; ++depth) {
    const Process process = look_up(pid);
    if (std::ranges::find(kLaunchers, process.name) != kLaunchers.end()) {
      cpu_set_t allocation;
      cpu_set_t own;
      if (sched_getaffinity(pid, sizeof(allocation), &allocation) == 0 &&
          sched_getaffinity(0, sizeof(own), &own) == 0) {
        CPU_OR(&allocation, &allocation, &own);
        sched_setaffinity(0, sizeof(allocation), &allocation);
      }
      break;
    }
    pid = process.parent;
  }
  return available_cores();
}

}  // namespace chorale
