#include "coordinator/started_world.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>

#include <array>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/control_link.h"
#include "coordinator/child_process.h"
#include "coordinator/commands/commands.h"
#include "coordinator/control_world.h"
#include "coordinator/launcher_watch.h"
#include "coordinator/make_cluster_plan.h"
#include "coordinator/world_alarm.h"

namespace chorale::coordinator {
namespace {

constexpr std::chrono::seconds kLeaveDeadline{10};
constexpr std::chrono::seconds kLostDeadline{2};  // mpirun that saw a rank die is already ending the others
constexpr std::chrono::seconds kTermDeadline{5};  // mpirun kills its ranks a second after it asked them
constexpr int kAwaitedPort = 8701;                // the default that `chorale worker` looks for
constexpr const char* kQuiet = "OMPI_MCA_orte_execute_quiet";

std::vector<std::string> mpirun_command(const StartedWorldOptions& options, const ClusterRequest& request,
                                        const std::string& address, uint64_t epoch) {
  std::vector<std::string> command{
      "mpirun", "--oversubscribe", "--bind-to", "none", "-n", std::to_string(request.layout.tp * request.layout.pp)};
  if (!options.hostfile.empty()) {
    if (!std::filesystem::is_regular_file(options.hostfile))
      fail(ErrorCode::kNotFound, "--hostfile {}: not a file", options.hostfile);
    command.insert(command.end(), {"--hostfile", options.hostfile});
  }
  // The secret travels in the environment: a command line can be read by everybody on the host.
  command.insert(command.end(), {"-x", "CHORALE_SECRET"});
  // What the user set for the libraries of GPUs holds for the ranks, which read it, on every host.
  for (const std::string_view prefix : {"NCCL_", "CHORALE_NCCL_", "CHORALE_CUBLASLT_"})
    for (const std::string& name : variables_named(prefix)) command.insert(command.end(), {"-x", name});
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  command.insert(command.end(), {self, "worker", "--coordinator", address, "--epoch", std::to_string(epoch), "--device",
                                 request.device ? std::string(to_string(*request.device)) : "auto", "--comm",
                                 request.comm ? std::string(to_string(*request.comm)) : "auto", "--threads",
                                 std::to_string(request.threads), "--log-level", "warn"});
  command.insert(command.end(), {"--gemm", std::string(to_string(needed_gemm(request)))});
  return command;
}

/// What mpirun prints of a rank that died follows what the coordinator says of it: a dozen lines that say less. On
/// other hosts it may find no daemon, slot or executable, which nobody else would tell.
bool silences_mpirun(const StartedWorldOptions& options) {
  return options.hostfile.empty() && variables_named(kQuiet).empty();
}

std::vector<std::pair<std::string, std::string>> mpirun_environment(const StartedWorldOptions& options,
                                                                    const std::string& secret) {
  std::vector<std::pair<std::string, std::string>> variables{{"CHORALE_SECRET", secret}};
  if (silences_mpirun(options)) variables.emplace_back(kQuiet, "1");
  return variables;
}

}  // namespace

std::string address_for_others() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "127.0.0.1";
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, freeifaddrs);
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    const bool usable = (entry->ifa_flags & IFF_UP) != 0 && (entry->ifa_flags & IFF_LOOPBACK) == 0;
    if (!usable || entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != AF_INET) continue;
    std::array<char, INET_ADDRSTRLEN> text{};
    const auto* address = reinterpret_cast<const sockaddr_in*>(entry->ifa_addr);
    if (inet_ntop(AF_INET, &address->sin_addr, text.data(), text.size()) != nullptr) return text.data();
  }
  return "127.0.0.1";
}

int run_started(const StartedWorldOptions& options, const ClusterRequest& request, const Coordinate& coordinate,
                const Forming& forming) {
  const parallel::ModelConfig config = check_request(request);  // before anything is started
  const bool awaits = options.start == WorldStart::kAwaitWorkers;
  const bool one_host = !awaits && options.hostfile.empty();
  const bool has_secret = !options.secret_file.empty() || env(EnvVar::kSecret).has_value();

  comm::ControlServerOptions link;
  link.host = !request.control_host.empty() ? request.control_host : one_host ? "127.0.0.1" : "0.0.0.0";
  link.port = request.control_port != 0 ? request.control_port : awaits ? kAwaitedPort : 0;
  link.secret = awaits || has_secret ? comm::secret_from(options.secret_file) : comm::random_secret();
  link.num_ranks = request.layout.tp * request.layout.pp;
  auto server = std::make_unique<comm::ControlServer>(link);
  const bool any_address = link.host == "0.0.0.0" || link.host == "::";
  const std::string host = any_address ? address_for_others() : link.host;
  const bool is_ipv6 = host.find(':') != std::string::npos;
  const std::string address = fmt::format(fmt::runtime(is_ipv6 ? "[{}]:{}" : "{}:{}"), host, server->port());

  const auto alarm = std::make_shared<WorldAlarm>();
  std::optional<LauncherWatch> launcher;
  if (awaits) {
    log_warn("waiting for {} workers: mpirun -n {} chorale worker --coordinator {}", link.num_ranks, link.num_ranks,
             address);
  } else {
    log_info("starting {} ranks with mpirun; control link on {}", link.num_ranks, address);
    launcher.emplace(ChildProcess::start(mpirun_command(options, request, address, link.epoch),
                                         mpirun_environment(options, link.secret), Output::kInherit),
                     [alarm](const std::string& how) { alarm->ring(how); });
  }
  // Nobody will come any more once mpirun has ended.
  Forming watched = forming;
  watched.gave_up = [&]() -> std::optional<std::string> {
    if (auto why = forming.gave_up()) return why;
    const auto how = alarm->reason();
    if (!how) return std::nullopt;
    const std::string hint = silences_mpirun(options) ? fmt::format("; with {}=0 it says more", kQuiet) : "";
    return *how + " before the world was ready" + hint;
  };
  const auto terminate_after = [&launcher](std::chrono::seconds patience) {
    if (launcher && !launcher->wait(Deadline::after(patience))) launcher->terminate(Deadline::after(kTermDeadline));
  };
  try {
    const int exit_code = coordinate(ControlWorld::establish(std::move(server), request, config,
                                                             Deadline::after(options.start_timeout), watched, alarm));
    // Workers of a world that ended well leave by themselves; of a lost one some may be frozen: waiting for long would
    // be in vain.
    terminate_after(exit_code == kExitWorldLost ? kLostDeadline : kLeaveDeadline);
    return exit_code;
  } catch (const Error& error) {
    // Open MPI's mpirun may crash when it is told to end while it does so.
    terminate_after(error.code() == ErrorCode::kPeerLost ? kLostDeadline : std::chrono::seconds(0));
    throw;
  } catch (...) {
    terminate_after(std::chrono::seconds(0));
    throw;
  }
}

}  // namespace chorale::coordinator
