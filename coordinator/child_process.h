// A child process in its own process group: the MPI world that the coordinator starts and watches, and the short
// commands of `doctor`. It knows nothing of MPI beyond scrubbing the launcher's variables from the child's environment.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/base/deadline.h"

namespace chorale::coordinator {

/// Names of this process's environment variables that start with `prefix`.
std::vector<std::string> variables_named(std::string_view prefix);

enum class Output : uint8_t { kInherit, kCapture };

/// Thread: any, one at a time. Destruction kills the whole group at once and reaps the child.
class ChildProcess {
 public:
  /// Starts argv[0] (found by PATH) with `environment` added to this process's, less what a surrounding mpirun or srun
  /// set (OMPI_* process variables, PMIX_*, PRTE_*). Standard input is empty. Throws Error{kNotFound | kSystem}.
  static ChildProcess start(const std::vector<std::string>& argv,
                            const std::vector<std::pair<std::string, std::string>>& environment, Output output);
  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&&) = delete;
  ~ChildProcess();

  pid_t pid() const { return pid_; }
  /// Exit code (128 + signal when killed) once it ended; nullopt at the deadline.
  std::optional<int> wait(Deadline deadline);
  /// Sends `signal` to the whole group.
  void signal(int signal) const;
  /// SIGTERM, then SIGKILL for what is left at the deadline; returns the exit code.
  int terminate(Deadline deadline);
  /// What it wrote so far to standard output and error, with kCapture; at most 1 MiB.
  const std::string& output() const { return output_; }

 private:
  ChildProcess() = default;
  void read_output();

  pid_t pid_ = -1;
  int pid_fd_ = -1;
  int output_fd_ = -1;
  std::optional<int> exit_code_;
  std::string output_;
};

struct CommandResult {
  std::optional<int> exit_code;  // nullopt: did not end by the deadline and was killed
  std::string output;
};
/// Runs a command to its end or the deadline. A command that cannot be started has exit code 127.
CommandResult run_command(const std::vector<std::string>& argv, Deadline deadline);

}  // namespace chorale::coordinator
