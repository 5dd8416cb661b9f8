#include "coordinator/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string_view>

#include "comm/base/error.h"

extern char** environ;  // NOLINT(readability-identifier-naming)

namespace chorale::coordinator {
namespace {

constexpr size_t kMaxOutputBytes = size_t{1} << 20;

/// Variables that tell a process its place in a surrounding world; a child that starts a world of its own must not see
/// them. Settings of the user (OMPI_MCA_*, OMPI_ALLOW_RUN_AS_ROOT*) stay; Kubernetes' MPI Operator sets that names of
/// hosts keep their domains, and users how much mpirun says.
bool is_launcher_variable(std::string_view entry) {
  if (entry.starts_with("PMIX_") || entry.starts_with("PRTE_") || entry.starts_with("PMI_")) return true;
  if (!entry.starts_with("OMPI_")) return false;
  for (const std::string_view users : {"OMPI_MCA_orte_keep_fqdn_hostnames=", "OMPI_MCA_orte_execute_quiet="})
    if (entry.starts_with(users)) return false;
  const bool set_by_orted = entry.starts_with("OMPI_MCA_ess_") || entry.starts_with("OMPI_MCA_orte_") ||
                            entry.starts_with("OMPI_MCA_pmix") || entry.starts_with("OMPI_MCA_initial_wdir");
  const bool set_by_user = entry.starts_with("OMPI_MCA_") || entry.starts_with("OMPI_ALLOW_RUN_AS_ROOT");
  return set_by_orted || !set_by_user;
}

std::vector<std::string> child_environment(const std::vector<std::pair<std::string, std::string>>& added) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    bool replaced = false;
    for (const auto& [name, value] : added)
      replaced |= text.starts_with(name) && text.size() > name.size() && text[name.size()] == '=';
    if (!replaced && !is_launcher_variable(text)) entries.emplace_back(text);
  }
  for (const auto& [name, value] : added) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

int to_milliseconds(Deadline deadline) {
  constexpr int64_t kLongestPoll = 60000;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline.remaining()).count();
  return static_cast<int>(std::min<int64_t>(left, kLongestPoll));
}

}  // namespace

std::vector<std::string> variables_named(std::string_view prefix) {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.starts_with(prefix)) names.emplace_back(text.substr(0, text.find('=')));
  }
  return names;
}

ChildProcess ChildProcess::start(const std::vector<std::string>& argv,
                                 const std::vector<std::pair<std::string, std::string>>& environment, Output output) {
  CHECK(!argv.empty());
  std::array<int, 2> pipe_fds{-1, -1};
  if (output == Output::kCapture && pipe2(pipe_fds.data(), O_CLOEXEC | O_NONBLOCK) != 0)
    fail(ErrorCode::kSystem, "pipe: {}", std::strerror(errno));

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  if (output == Output::kCapture) {
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDERR_FILENO);
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t no_signals;
  sigemptyset(&no_signals);
  posix_spawnattr_setsigmask(&attributes, &no_signals);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);

  std::vector<std::string> arguments = argv;
  std::vector<std::string> variables = child_environment(environment);
  ChildProcess child;
  const int error = posix_spawnp(&child.pid_, argv[0].c_str(), &actions, &attributes, pointers(arguments).data(),
                                 pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (pipe_fds[1] >= 0) close(pipe_fds[1]);
  child.output_fd_ = pipe_fds[0];
  if (error != 0) {
    child.pid_ = -1;
    fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kSystem, "cannot start {}: {}", argv[0],
         std::strerror(error));
  }
  child.pid_fd_ = static_cast<int>(syscall(SYS_pidfd_open, child.pid_, 0));
  if (child.pid_fd_ < 0)
    fail(ErrorCode::kSystem, "pidfd_open: {} (Linux 5.3 or newer is needed)", std::strerror(errno));
  return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      pid_fd_(std::exchange(other.pid_fd_, -1)),
      output_fd_(std::exchange(other.output_fd_, -1)),
      exit_code_(other.exit_code_),
      output_(std::move(other.output_)) {}

ChildProcess::~ChildProcess() {
  if (pid_ > 0 && !exit_code_) {
    signal(SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (pid_fd_ >= 0) close(pid_fd_);
  if (output_fd_ >= 0) close(output_fd_);
}

void ChildProcess::read_output() {
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t size = read(output_fd_, buffer.data(), buffer.size());
    if (size < 0) return;
    if (size == 0) {
      close(output_fd_);
      output_fd_ = -1;
      return;
    }
    const size_t room = kMaxOutputBytes - output_.size();
    output_.append(buffer.data(), std::min(room, static_cast<size_t>(size)));
  }
}

std::optional<int> ChildProcess::wait(Deadline deadline) {
  while (!exit_code_) {
    std::array<pollfd, 2> fds{{{pid_fd_, POLLIN, 0}, {output_fd_, POLLIN, 0}}};  // poll skips negative descriptors
    const int ready = poll(fds.data(), fds.size(), to_milliseconds(deadline));
    if (ready < 0 && errno != EINTR) fail(ErrorCode::kSystem, "poll: {}", std::strerror(errno));
    if (fds[1].revents != 0) read_output();
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      if (output_fd_ >= 0) read_output();
    } else if (deadline.expired()) {
      return std::nullopt;
    }
  }
  return exit_code_;
}

void ChildProcess::signal(int signal) const {
  if (pid_ > 0 && !exit_code_) kill(-pid_, signal);
}

int ChildProcess::terminate(Deadline deadline) {
  signal(SIGTERM);
  if (const std::optional<int> code = wait(deadline)) return *code;
  signal(SIGKILL);
  constexpr std::chrono::seconds kAfterKill{10};
  return wait(Deadline::after(kAfterKill)).value_or(128 + SIGKILL);
}

CommandResult run_command(const std::vector<std::string>& argv, Deadline deadline) {
  try {
    ChildProcess child = ChildProcess::start(argv, {}, Output::kCapture);
    CommandResult result;
    result.exit_code = child.wait(deadline);
    result.output = child.output();
    return result;
  } catch (const Error& error) {
    constexpr int kCannotStart = 127;
    return {kCannotStart, error.what()};
  }
}

}  // namespace chorale::coordinator
