#include "coordinator/hosted_world.h"

#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <optional>
#include <sstream>
#include <thread>

#include <fmt/format.h>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/watchdog.h"
#include "comm/control_link.h"
#include "comm/mpi_session.h"
#include "coordinator/commands/commands.h"
#include "coordinator/control_world.h"
#include "coordinator/make_cluster_plan.h"
#include "coordinator/started_world.h"

namespace chorale::coordinator {
namespace {

constexpr std::chrono::minutes kAddressDeadline{10};  // rank 0 may still read its jobs from a pipe
constexpr std::chrono::seconds kJoinDeadline{120};

/// What rank 0 tells the others over MPI, before any of them has a link.
struct Rendezvous {
  std::string host;
  int port = 0;
  uint64_t epoch = 0;
  std::string secret;

  std::string encode() const { return fmt::format("{} {} {} {}", host, port, epoch, secret); }
  static Rendezvous decode(const std::string& text) {
    Rendezvous rendezvous;
    std::istringstream in(text);
    in >> rendezvous.host >> rendezvous.port >> rendezvous.epoch >> rendezvous.secret;
    if (!in) fail(ErrorCode::kCorrupt, "rank 0 did not say where the coordinator is");
    return rendezvous;
  }
};

WorkerStart worker_start(const Rendezvous& rendezvous, const ClusterRequest& request) {
  WorkerStart start;
  start.control_host = rendezvous.host;
  start.control_port = static_cast<uint16_t>(rendezvous.port);
  start.secret = rendezvous.secret;
  start.epoch = rendezvous.epoch;
  start.device = request.device;
  start.comm = request.comm;
  start.threads = request.threads;
  start.looks_for_cublaslt = needed_gemm(request) == Gemm::kCublasLt;
  return start;
}

/// Leaves where a rank is lost while it loads: this rank's worker would wait for it until a deadline of minutes.
std::unique_ptr<World> form(const comm::MpiSession& session, std::unique_ptr<comm::ControlServer> server,
                            const ClusterRequest& request, const parallel::ModelConfig& config,
                            const Forming& forming) {
  try {
    return ControlWorld::establish(std::move(server), request, config, Deadline::after(kJoinDeadline), forming);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kPeerLost && session.uses_mpi()) leave_lost_world(error.what());
    throw;
  }
}

/// Rank 0: the coordinator on a thread of its own, this rank's worker on the main thread.
int run_rank_zero(const comm::MpiSession& session, const WorkerModule& worker, const ClusterRequest& request,
                  const Coordinate& coordinate, const Forming& forming) {
  const parallel::ModelConfig config = check_request(request);  // before the others are told anything
  comm::ControlServerOptions options;
  options.host = session.map().num_hosts() > 1 ? "0.0.0.0" : "127.0.0.1";
  options.secret = comm::random_secret();
  options.epoch = 1;
  options.num_ranks = session.size();
  if (!request.control_host.empty()) options.host = request.control_host;
  options.port = request.control_port;
  auto server = std::make_unique<comm::ControlServer>(options);

  Rendezvous rendezvous{options.host, server->port(), options.epoch, options.secret};
  if (options.host == "0.0.0.0" || options.host == "::") rendezvous.host = address_for_others();
  session.broadcast_text(rendezvous.encode(), Deadline::after(kAddressDeadline));

  int exit_code = 0;
  std::exception_ptr failure;
  std::thread coordinator([&] {
    try {
      exit_code = coordinate(form(session, std::move(server), request, config, forming));
    } catch (...) {
      failure = std::current_exception();  // the world's owner is gone, and with it the workers' links: they leave
    }
  });
  int worker_code = 1;
  std::exception_ptr worker_failure;
  try {
    WorkerStart start = worker_start(rendezvous, request);
    start.hosts_coordinator = true;
    worker_code = worker.run(start, session);
  } catch (...) {
    worker_failure = std::current_exception();
  }
  coordinator.join();
  if (exit_code == kExitWorldLost && session.uses_mpi()) {  // MPI_Finalize would wait for the rank that is lost
    std::cout.flush();
    std::_Exit(kExitWorldLost);
  }
  if (worker_failure) std::rethrow_exception(worker_failure);  // the cause; the coordinator heard of it
  if (failure) std::rethrow_exception(failure);
  return exit_code != 0 ? exit_code : worker_code;
}

}  // namespace

std::optional<std::string> nobody_gave_up() { return std::nullopt; }

int run_hosted(const comm::MpiSession& session, const WorkerModule& worker, const ClusterRequest& request,
               const Coordinate& coordinate, const Forming& forming) {
  const int num_ranks = request.layout.tp * request.layout.pp;
  if (session.size() != num_ranks && session.rank() != 0) return kExitUsage;  // rank 0 says why
  if (session.size() != num_ranks)
    fail(ErrorCode::kInvalidArgument, "the world has {} rank{}, but tp={} x pp={} needs {}: start it with mpirun -n {}",
         session.size(), session.size() == 1 ? "" : "s", request.layout.tp, request.layout.pp, num_ranks, num_ranks);
  if (session.rank() == 0) return run_rank_zero(session, worker, request, coordinate, forming);
  const Rendezvous rendezvous = Rendezvous::decode(session.broadcast_text("", Deadline::after(kAddressDeadline)));
  return worker.run(worker_start(rendezvous, request), session);
}

}  // namespace chorale::coordinator
