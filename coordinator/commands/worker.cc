// chorale worker: one rank of a world whose coordinator runs elsewhere; started by mpirun or srun, or by the
// coordinator itself.
#include <charconv>
#include <chrono>
#include <iostream>
#include <string>

#include <fmt/format.h>
#include <cxxopts.hpp>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/control_handshake.h"
#include "comm/mpi_session.h"
#include "coordinator/commands/cluster_options.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/parse_arguments.h"

namespace chorale::coordinator {
namespace {

constexpr uint16_t kDefaultControlPort = 8701;

/// "HOST:PORT", "HOST" or "[IPv6]:PORT".
void parse_address(const std::string& text, WorkerStart& start) {
  start.control_host = text;
  start.control_port = kDefaultControlPort;
  const size_t colon = text.rfind(':');
  const bool has_port =
      colon != std::string::npos && (text.find(':') == colon || (colon > 0 && text[colon - 1] == ']'));
  if (has_port) {
    start.control_host = text.substr(0, colon);
    const char* first = text.data() + colon + 1;
    const char* last = text.data() + text.size();
    const auto [end, error] = std::from_chars(first, last, start.control_port);
    if (error != std::errc() || end != last || start.control_port == 0)
      fail(ErrorCode::kInvalidArgument, "--coordinator {}: expected HOST:PORT with a port of 1 to 65535", text);
  }
  if (start.control_host.size() > 2 && start.control_host.front() == '[' && start.control_host.back() == ']')
    start.control_host = start.control_host.substr(1, start.control_host.size() - 2);
  if (start.control_host.empty()) fail(ErrorCode::kInvalidArgument, "--coordinator {}: expected HOST:PORT", text);
}

}  // namespace

int run_worker(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options("chorale worker",
                           "One rank of a world whose coordinator (chorale serve --await-workers) runs elsewhere.");
  options.add_options()                                                                              //
      ("coordinator", "HOST:PORT of the coordinator's control link", cxxopts::value<std::string>())  //
      ("secret-file", "file with the secret that both sides share (or CHORALE_SECRET)",
       cxxopts::value<std::string>())  //
      ("epoch", "number of the world (0: whatever the coordinator serves)",
       cxxopts::value<uint64_t>()->default_value("0"))  //
      ("threads", "compute threads of this rank (0: cores / ranks on this host)",
       cxxopts::value<int>()->default_value("0"))                                                       //
      ("device", "auto, cpu, cuda, or emulator", cxxopts::value<std::string>()->default_value("auto"))  //
      ("gemm", "cublaslt: look for cuBLASLt, for a coordinator with --gemm cublaslt",
       cxxopts::value<std::string>()->default_value("own"))  //
      ("answer", "fast: the same, for a coordinator with --answer fast",
       cxxopts::value<std::string>()->default_value("one"))  //
      ("comm", "auto, nccl, or mpi: what this rank offers to exchange activations over; the coordinator decides",
       cxxopts::value<std::string>()->default_value("auto"))  //
      ("record", "rank 0 writes the cluster plan and every step plan to FILE",
       cxxopts::value<std::string>()->default_value(""))  //
      ("replay", "run the plans of a recorded FILE without a coordinator",
       cxxopts::value<std::string>()->default_value(""))                                                           //
      ("log-level", "trace, debug, info, warn, error, off", cxxopts::value<std::string>()->default_value("warn"))  //
      ("h,help", "print this");
  const auto arguments = parse_arguments(options, argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help()
              << "\nexamples:\n  CHORALE_SECRET=... mpirun -n 4 chorale worker --coordinator head:8701\n"
                 "  srun --mpi=pmix chorale worker --coordinator head:8701 --secret-file ~/.chorale-secret\n"
                 "  mpirun -n 4 chorale worker --replay plans.bin\n";
    return kExitOk;
  }
  const auto replay = arguments["replay"].as<std::string>();
  WorkerStart start;
  if (replay.empty()) {
    if (arguments.count("coordinator") == 0) fail(ErrorCode::kInvalidArgument, "--coordinator HOST:PORT is required");
    parse_address(arguments["coordinator"].as<std::string>(), start);
    start.secret =
        comm::secret_from(arguments.count("secret-file") != 0 ? arguments["secret-file"].as<std::string>() : "");
  }
  start.epoch = arguments["epoch"].as<uint64_t>();
  start.device = parse_device(arguments["device"].as<std::string>());
  start.comm = parallel::device_comm_from_string(arguments["comm"].as<std::string>());
  start.threads = arguments["threads"].as<int>();
  ClusterRequest request;
  request.gemm = gemm_from_string(arguments["gemm"].as<std::string>());
  request.answer = parallel::answer_from_string(arguments["answer"].as<std::string>());
  start.looks_for_cublaslt = needed_gemm(request) == Gemm::kCublasLt;
  const LogLevel level = log_level_from_string(arguments["log-level"].as<std::string>());
  const auto session = comm::MpiSession::start();
  init_log(level, fmt::format("rank {}", session->rank()));
  start.record_path = arguments["record"].as<std::string>();
  if (!replay.empty()) return worker.replay(replay, start, *session);
  return worker.run(start, *session);
}

}  // namespace chorale::coordinator
