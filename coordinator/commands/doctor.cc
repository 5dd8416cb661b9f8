// chorale doctor: is this machine (and are these hosts) fit to run a world? One line a fact: ok, warn or fail, and what
// to do.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/version.h"
#include "coordinator/child_process.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/doctor_gpus.h"
#include "coordinator/commands/parse_arguments.h"
#include "parallel/host_facts.h"
#include "parallel/numerics.h"

namespace chorale::coordinator {
namespace {

using std::chrono::seconds;

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

Finding check_mpi() {
  const CommandResult version = run_command({"mpirun", "--version"}, Deadline::after(seconds(10)));
  if (version.exit_code != 0)
    return {Verdict::kFail, "mpi", "mpirun does not run: " + first_line(version.output),
            "install Open MPI (apt-get install openmpi-bin) or load your cluster's module"};
  std::vector<std::string> trial{"mpirun", "--oversubscribe", "--bind-to", "none", "-n", "2", "true"};
  if (geteuid() == 0) trial.insert(trial.begin() + 1, "--allow-run-as-root");
  const CommandResult started = run_command(trial, Deadline::after(seconds(30)));
  if (!started.exit_code)
    return {Verdict::kFail, "mpi", "mpirun -n 2 did not end within 30 s",
            "check the host name's address (/etc/hosts) and firewalls between this host and itself"};
  if (*started.exit_code != 0)
    return {Verdict::kFail, "mpi",
            fmt::format("mpirun -n 2 failed ({}): {}", *started.exit_code, first_line(started.output)),
            "run the same command by hand: mpirun --oversubscribe -n 2 true"};
  return {Verdict::kOk, "mpi", first_line(version.output), ""};
}

Finding check_cores() {
  const unsigned cores = std::thread::hardware_concurrency();
  const std::string fact = fmt::format("{} cores, {}, float32 kernels {}, bf16 kernels {}", cores,
                                       parallel::cpu_model_name(), parallel::to_string(parallel::best_isa(DType::kF32)),
                                       parallel::to_string(parallel::best_isa(DType::kBF16)));
  if (parallel::best_isa(DType::kF32) == parallel::Isa::kScalar)
    return {Verdict::kWarn, "cpu", fact, "no AVX2: the scalar reference kernels are many times slower"};
  return {Verdict::kOk, "cpu", fact, ""};
}

Finding check_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  uint64_t kib = 0, available = 0, total = 0;
  for (std::string unit; file >> key >> kib; std::getline(file, unit)) {
    if (key == "MemAvailable:") available = kib / 1024;
    if (key == "MemTotal:") total = kib / 1024;
  }
  constexpr uint64_t kLittleMiB = 1024;
  const std::string fact = fmt::format("{} of {} MiB available", available, total);
  if (available < kLittleMiB)
    return {Verdict::kWarn, "memory", fact,
            "the default model needs about 1 GiB with its KV cache; see `chorale plan`"};
  return {Verdict::kOk, "memory", fact, ""};
}

Finding check_shared_memory() {
  struct statvfs info {};
  if (statvfs("/dev/shm", &info) != 0)
    return {Verdict::kWarn, "/dev/shm", "not mounted", "ranks of one host then talk over MPI; mount a tmpfs there"};
  const uint64_t free_mib = info.f_bavail * info.f_frsize / kMiB;
  constexpr uint64_t kEnoughMiB = 256;
  const std::string fact = fmt::format("{} MiB free", free_mib);
  if (free_mib < kEnoughMiB)
    return {Verdict::kWarn, "/dev/shm", fact,
            "worlds with many ranks may fall back to MPI inside the host; in containers give --shm-size=1g"};
  return {Verdict::kOk, "/dev/shm", fact, ""};
}

Finding check_huge_pages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string text;
  std::getline(file, text);
  if (text.find("[never]") != std::string::npos)
    return {Verdict::kWarn, "huge pages", text, "weights stream about 10 % slower; echo madvise > that file"};
  return {Verdict::kOk, "huge pages", text.empty() ? "unknown" : text, ""};
}

Finding check_port(const std::string& host, int port) {
  const std::string subject = fmt::format("port {}", port);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) {
    close(fd);
    return {Verdict::kFail, subject, fmt::format("'{}' is not an IPv4 address", host), "give --host as in 127.0.0.1"};
  }
  const int yes = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const bool free = bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  close(fd);
  if (!free)
    return {Verdict::kFail, subject, fmt::format("{}:{} cannot be bound: {}", host, port, std::strerror(errno)),
            "choose another with --port, or 0 for any"};
  return {Verdict::kOk, subject, fmt::format("{}:{} is free", host, port), ""};
}

/// Host names of an Open MPI hostfile: the first word of each line, '#' starts a comment.
std::vector<std::string> read_hostfile(const std::string& path) {
  std::vector<std::string> hosts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string host;
    if (words >> host) hosts.push_back(host);
  }
  return hosts;
}

/// mpirun starts ranks there itself, without ssh.
bool is_this_host(const std::string& host) {
  const std::string name = parallel::read_host_facts().host_name;
  return host == "localhost" || host == "127.0.0.1" || host == "::1" || host == name ||
         host == name.substr(0, name.find('.'));
}

std::string advice_on_ssh(const std::string& host, const std::string& problem) {
  for (const char* network : {"resolve", "timed out", "No route", "refused", "Network is unreachable"})
    if (problem.find(network) != std::string::npos) return "check the host's name, its network and its sshd";
  return "mpirun needs ssh without a password: ssh-copy-id " + host;
}

Finding check_host(const std::string& host) {
  if (is_this_host(host)) return {Verdict::kOk, "host " + host, "this host: needs no ssh", ""};
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const CommandResult result =
      run_command({"ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", host, "'" + self + "' --version"},
                  Deadline::after(seconds(15)));
  const std::string subject = "host " + host;
  if (!result.exit_code) return {Verdict::kFail, subject, "ssh did not answer within 15 s", "check network and sshd"};
  if (*result.exit_code == 255)
    return {Verdict::kFail, subject, "ssh failed: " + first_line(result.output), advice_on_ssh(host, result.output)};
  if (*result.exit_code != 0)
    return {Verdict::kFail, subject, fmt::format("{} does not run there: {}", self, first_line(result.output)),
            "install the same build at the same path on every host"};
  if (result.output.find(kBuildId) == std::string::npos)
    return {Verdict::kWarn, subject, first_line(result.output),
            fmt::format("another build than here ({}): one answer needs one build", kBuildId)};
  return {Verdict::kOk, subject, first_line(result.output), ""};
}

std::vector<Finding> check_hostfile(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    return {{Verdict::kFail, "hostfile", path + " is not a file",
             "give an Open MPI hostfile: a line `node1 slots=4` a host"}};
  std::vector<Finding> findings;
  for (const std::string& host : read_hostfile(path)) findings.push_back(check_host(host));
  if (findings.empty())
    findings.push_back({Verdict::kFail, "hostfile", path + " names no host", "add `node1 slots=4`"});
  return findings;
}

void print(const std::vector<Finding>& findings) {
  for (const Finding& finding : findings) {
    std::cout << fmt::format("{:<4}  {:<12} {}\n", to_string(finding.verdict), finding.subject, finding.fact);
    if (!finding.advice.empty()) std::cout << fmt::format("      {:<12} -> {}\n", "", finding.advice);
  }
}

void print_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings)
    list.push_back({{"verdict", to_string(finding.verdict)},
                    {"subject", finding.subject},
                    {"fact", finding.fact},
                    {"advice", finding.advice}});
  std::cout << list.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
}

}  // namespace

int run_doctor(int argc, char** argv) {
  cxxopts::Options options("chorale doctor",
                           "Checks whether this machine can run a world; says what to do where it cannot.");
  options.add_options()                                                                                     //
      ("hostfile", "Open MPI hostfile: also check that each host answers", cxxopts::value<std::string>())   //
      ("host", "address the server would bind", cxxopts::value<std::string>()->default_value("127.0.0.1"))  //
      ("port", "port the server would bind", cxxopts::value<int>()->default_value("8000"))                  //
      ("json", "print a JSON list")                                                                         //
      ("h,help", "print this");
  const auto arguments = parse_arguments(options, argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help() << "\nexamples:\n  chorale doctor\n  chorale doctor --hostfile hosts --json\n";
    return kExitOk;
  }
  std::vector<Finding> findings{check_mpi(), check_cores(), check_memory(), check_shared_memory(), check_huge_pages()};
  for (Finding& finding :
       check_gpus(DeviceRegistry::find(chorale::to_string(DeviceKind::kCuda)), LibraryRegistry::all()))
    findings.push_back(std::move(finding));
  const int port = arguments["port"].as<int>();
  if (port > 0) findings.push_back(check_port(arguments["host"].as<std::string>(), port));
  if (arguments.count("hostfile") != 0)
    for (Finding& finding : check_hostfile(arguments["hostfile"].as<std::string>()))
      findings.push_back(std::move(finding));
  if (arguments.count("json") != 0)
    print_json(findings);
  else
    print(findings);
  for (const Finding& finding : findings)
    if (finding.verdict == Verdict::kFail) return kExitFailure;
  return kExitOk;
}

}  // namespace chorale::coordinator
