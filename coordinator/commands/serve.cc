// chorale serve: the coordinator as a server. Three ways to start (architecture.md section 2): under mpirun rank 0
// hosts it; alone it starts mpirun itself; with --await-workers the workers are started elsewhere.
#include <sys/socket.h>

#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>

#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/mpi_session.h"
#include "coordinator/api/engine_job_service.h"
#include "coordinator/commands/cluster_options.h"
#include "coordinator/commands/commands.h"
#include "coordinator/engine.h"
#include "coordinator/hosted_world.h"
#include "coordinator/http/server.h"
#include "coordinator/model_services.h"
#include "coordinator/signal_waiter.h"
#include "coordinator/started_world.h"

namespace chorale::coordinator {
namespace {

constexpr std::chrono::milliseconds kLookAtHealth{250};
constexpr std::chrono::seconds kLastAnswers{2};  // that readers have to take the errors of a lost world

struct ServeOptions {
  ClusterOptions cluster;
  http::HttpOptions http;
  StartedWorldOptions world;  // the second and third way to start
  std::string ready_file;
  std::chrono::seconds drain_timeout{30};
};

/// Written once /health answers 200: a file, or a pipe that a script reads.
void announce(const std::string& ready_file, const std::string& url) {
  if (ready_file.empty()) return;
  std::ofstream out(ready_file);
  out << url << std::endl;
  if (!out) fail(ErrorCode::kSystem, "--ready-file {}: cannot be written", ready_file);
}

/// Serves until a signal asks to drain, or the world is lost.
int serve_world(const ServeOptions& options, SignalWaiter& signals, std::unique_ptr<World> world) {
  const ModelServices services = load_model_services(options.cluster.request.model_path, options.cluster.chat_template);
  const auto context =
      make_api_context(services, world->plan(), options.cluster.served_model_names, options.cluster.seed);
  log_info("{}", world->plan().to_string());
  auto engine = std::make_shared<Engine>(options.cluster.engine, services.tokenizer, std::move(world));
  http::HttpServer server(options.http, context, std::make_shared<api::EngineJobService>(engine));
  server.start();
  log_info("serving {} on {}", context->model.served_names.front(), server.url());
  announce(options.ready_file, server.url());

  std::optional<int> signal;
  while (!signal) {
    signal = signals.wait(Deadline::after(kLookAtHealth));
    const Result<std::string> health = engine->health();
    if (!health && health.failure().code == ErrorCode::kPeerLost) {
      log_error("{}; its jobs ended with this error", health.failure().message);
      server.drain(Deadline::after(kLastAnswers));
      server.stop();
      return kExitWorldLost;
    }
  }
  log_info("draining: no new jobs, {} s for the running ones", options.drain_timeout.count());
  const Deadline deadline = Deadline::after(options.drain_timeout);
  server.drain(deadline);
  engine->drain(deadline);
  server.stop();
  return kExitOk;
}

void add_server_options(cxxopts::Options& options) {
  const http::HttpOptions http;
  options.add_options("Server")                                                                  //
      ("host", "address to listen on", cxxopts::value<std::string>()->default_value(http.host))  //
      ("port", "port to listen on; 0: any free one",
       cxxopts::value<int>()->default_value(std::to_string(http.port)))  //
      ("api-key", "clients must show this key (or CHORALE_API_KEY); may be given several times",
       cxxopts::value<std::vector<std::string>>())  //
      ("request-timeout", "seconds until an unfinished request is answered 504; 0: none",
       cxxopts::value<int>()->default_value("0"))  //
      ("drain-timeout", "seconds that running jobs have after SIGTERM or SIGUSR1",
       cxxopts::value<int>()->default_value("30"))  //
      ("ready-file", "write the server's address there once it serves",
       cxxopts::value<std::string>()->default_value(""));
  options.add_options("World")  //
      ("hostfile", "Open MPI hostfile: start the ranks on these hosts",
       cxxopts::value<std::string>()->default_value(""))                          //
      ("await-workers", "do not start ranks: wait for `chorale worker` to join")  //
      ("secret-file", "file with the secret shared with the workers (or CHORALE_SECRET; else a fresh one)",
       cxxopts::value<std::string>()->default_value(""))  //
      ("start-timeout", "seconds until all ranks must have joined", cxxopts::value<int>()->default_value("120"));
}

ServeOptions read_server_options(const cxxopts::ParseResult& arguments) {
  ServeOptions options;
  options.cluster = read_cluster_options(arguments);
  options.http.host = arguments["host"].as<std::string>();
  options.http.port = arguments["port"].as<int>();
  if (options.http.port < 0 || options.http.port > 65535)
    fail(ErrorCode::kInvalidArgument, "--port {}: expected 0 to 65535", options.http.port);
  if (arguments.count("api-key") != 0) options.http.api_keys = arguments["api-key"].as<std::vector<std::string>>();
  if (const std::optional<std::string> key = env(EnvVar::kApiKey)) options.http.api_keys.push_back(*key);
  options.http.request_timeout = std::chrono::seconds(arguments["request-timeout"].as<int>());
  options.drain_timeout = std::chrono::seconds(arguments["drain-timeout"].as<int>());
  options.ready_file = arguments["ready-file"].as<std::string>();
  options.world.hostfile = arguments["hostfile"].as<std::string>();
  options.world.start = arguments.count("await-workers") != 0 ? WorldStart::kAwaitWorkers : WorldStart::kMpirun;
  options.world.secret_file = arguments["secret-file"].as<std::string>();
  options.world.start_timeout = std::chrono::seconds(arguments["start-timeout"].as<int>());
  return options;
}

}  // namespace

int run_serve(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options("chorale serve", "Serves a model over HTTP with the OpenAI API.");
  add_cluster_options(options);
  add_server_options(options);
  options.add_options()("h,help", "print this");
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help()
              << "\nexamples:\n"
                 "  mpirun -n 4 chorale serve --model M --tp 2 --pp 2            all in one, for trying\n"
                 "  chorale serve --model M --tp 2 --pp 2 --hostfile hosts       starts and watches mpirun itself\n"
                 "  chorale serve --model M --tp 4 --await-workers               and elsewhere:\n"
                 "      mpirun -n 4 chorale worker --coordinator HOST:8701\n"
                 "exit codes: 0 drained, 1 failure, 2 usage, 3 world lost\n";
    return kExitOk;
  }
  const ServeOptions serve_options = read_server_options(arguments);
  SignalWaiter signals;  // before any thread
  const ClusterRequest& request = serve_options.cluster.request;
  const auto serve = [&](std::unique_ptr<World> world) {
    return serve_world(serve_options, signals, std::move(world));
  };
  const bool one_rank = request.layout.tp * request.layout.pp == 1 && serve_options.world.hostfile.empty();
  if (serve_options.world.start == WorldStart::kMpirun && (comm::started_by_launcher() || one_rank)) {
    const auto session = comm::MpiSession::start();
    init_log(serve_options.cluster.log_level, fmt::format("rank {}", session->rank()));
    return run_hosted(*session, worker, request, serve);
  }
  init_log(serve_options.cluster.log_level, "coordinator");
  return run_started(serve_options.world, request, serve);
}

}  // namespace chorale::coordinator
