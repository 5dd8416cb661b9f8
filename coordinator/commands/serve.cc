// chorale serve: the coordinator as a server. Three ways to start (architecture.md section 2): under mpirun rank 0
// hosts it; alone it starts mpirun itself; with --await-workers the workers are started elsewhere.
#include <sys/socket.h>

#include <algorithm>
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
#include "coordinator/commands/parse_arguments.h"
#include "coordinator/engine.h"
#include "coordinator/hosted_world.h"
#include "coordinator/http/server.h"
#include "coordinator/model_services.h"
#include "coordinator/signal_waiter.h"
#include "coordinator/started_world.h"

namespace chorale::coordinator {
namespace {

constexpr std::chrono::milliseconds kLookAtHealth{250};
constexpr std::chrono::milliseconds kLookForFirstAnswer{10};
constexpr std::chrono::seconds kFirstAnswer{60};
constexpr std::chrono::seconds kLastAnswers{2};  // that readers have to take the errors of a lost world

struct ServeOptions {
  ClusterOptions cluster;
  http::HttpOptions http;
  StartedWorldOptions world;  // the second and third way to start
  std::string ready_file;
  std::chrono::seconds drain_timeout{30};
};

Failure interrupted() { return {ErrorCode::kSystem, "interrupted by a signal before the world was ready", ""}; }

/// Written once /health answers 200: a file, or a pipe that a script reads.
void announce(const std::string& ready_file, const std::string& url) {
  if (ready_file.empty()) return;
  std::ofstream out(ready_file);
  out << url << std::endl;
  if (!out) fail(ErrorCode::kSystem, "--ready-file {}: cannot be written", ready_file);
}

/// Nothing once the workers answered their first step; else why that did not happen.
std::optional<Failure> await_health(const Engine& engine, SignalWaiter& signals) {
  const Deadline deadline = Deadline::after(kFirstAnswer);
  for (;;) {
    const Result<std::string> health = engine.health();
    if (health) return std::nullopt;
    if (health.failure().code == ErrorCode::kPeerLost || deadline.expired()) return health.failure();
    if (signals.wait(Deadline::after(kLookForFirstAnswer))) return interrupted();
  }
}

/// Whatever ends serve_world: first the connections, which use the engine, then the engine, which stops its world.
struct StopAtEnd {
  http::HttpServer& server;
  ~StopAtEnd() { server.stop(); }
};

/// Serves until a signal asks to drain, or the world is lost. `server` listens already.
int serve_world(const ServeOptions& options, const ModelServices& services, SignalWaiter& signals,
                http::HttpServer& server, std::unique_ptr<World> world) {
  const auto context =
      make_api_context(services, world->plan(), options.cluster.served_model_names, options.cluster.seed);
  log_info("{}", world->plan().to_string());
  auto engine = std::make_shared<Engine>(options.cluster.engine, services.tokenizer, std::move(world));
  const StopAtEnd stop{server};
  server.open(context, std::make_shared<api::EngineJobService>(engine));
  if (const std::optional<Failure> failure = await_health(*engine, signals)) {
    if (failure->code == ErrorCode::kPeerLost) return kExitWorldLost;  // the engine has said why
    fail(failure->code, "{}", failure->message);
  }
  log_info("serving {} on {}", context->model.served_names.front(), server.url());
  announce(options.ready_file, server.url());

  std::optional<int> signal;
  while (!signal) {
    signal = signals.wait(Deadline::after(kLookAtHealth));
    const Result<std::string> health = engine->health();
    if (!health && health.failure().code == ErrorCode::kPeerLost) {
      server.drain(Deadline::after(kLastAnswers));  // the engine has said why
      return kExitWorldLost;
    }
  }
  log_info("draining: no new jobs, {} s for the running ones", options.drain_timeout.count());
  const Deadline deadline = Deadline::after(options.drain_timeout);
  server.drain(deadline);
  engine->drain(deadline);
  server.drain(Deadline::after(kLastAnswers));  // jobs that did not finish in time: their errors
  const Result<std::string> health = engine->health();
  return !health && health.failure().code == ErrorCode::kPeerLost ? kExitWorldLost : kExitOk;
}

void add_server_options(cxxopts::Options& options) {
  const http::HttpOptions http;
  options.add_options("Server")                                                                  //
      ("host", "address to listen on", cxxopts::value<std::string>()->default_value(http.host))  //
      ("port", "port to listen on; 0: any free one",
       cxxopts::value<int>()->default_value(std::to_string(http.port)))  //
      ("api-key", "clients must show this key (or CHORALE_API_KEY); may be given several times",
       cxxopts::value<std::string>())  //
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

std::chrono::seconds read_seconds(const cxxopts::ParseResult& arguments, const std::string& flag) {
  const int value = arguments[flag].as<int>();
  if (value < 0) fail(ErrorCode::kInvalidArgument, "--{} {}: expected a number of seconds, not negative", flag, value);
  return std::chrono::seconds(value);
}

ServeOptions read_server_options(const cxxopts::ParseResult& arguments) {
  ServeOptions options;
  options.cluster = read_cluster_options(arguments);
  if (arguments.count("log-level") == 0) options.cluster.log_level = LogLevel::kInfo;
  options.http.host = arguments["host"].as<std::string>();
  options.http.port = arguments["port"].as<int>();
  if (options.http.port < 0 || options.http.port > 65535)
    fail(ErrorCode::kInvalidArgument, "--port {}: expected 0 to 65535", options.http.port);
  options.http.api_keys = texts_of(arguments, "api-key");
  if (std::ranges::find(options.http.api_keys, "") != options.http.api_keys.end())
    fail(ErrorCode::kInvalidArgument, "--api-key is empty: give a key, or leave it out to serve without one");
  if (const std::optional<std::string> key = env(EnvVar::kApiKey)) options.http.api_keys.push_back(*key);
  options.http.request_timeout = read_seconds(arguments, "request-timeout");
  options.drain_timeout = read_seconds(arguments, "drain-timeout");
  options.ready_file = arguments["ready-file"].as<std::string>();
  options.world.hostfile = arguments["hostfile"].as<std::string>();
  options.world.start = arguments.count("await-workers") != 0 ? WorldStart::kAwaitWorkers : WorldStart::kMpirun;
  options.world.secret_file = arguments["secret-file"].as<std::string>();
  options.world.start_timeout = read_seconds(arguments, "start-timeout");
  return options;
}

}  // namespace

int run_serve(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options("chorale serve", "Serves a model over HTTP with the OpenAI API.");
  add_cluster_options(options);
  add_server_options(options);
  options.add_options()("h,help", "print this");
  const auto arguments = parse_arguments(options, argc, argv);
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
  ModelServices services;
  std::optional<http::HttpServer> server;
  const auto serve = [&](std::unique_ptr<World> world) {
    return serve_world(serve_options, services, signals, *server, std::move(world));
  };
  Forming forming;
  forming.gave_up = [&signals]() -> std::optional<std::string> {
    if (signals.wait(Deadline::after(std::chrono::milliseconds(0)))) return interrupted().message;
    return std::nullopt;
  };
  forming.progress = [&server](const std::string& waits_for) { server->set_waiting_for(waits_for); };
  // Before the workers, which may take minutes to come and load: a wrong template or a taken port is said at once, and
  // /health says how far they are.
  const auto open_port = [&] {
    services = load_model_services(request.model_path, serve_options.cluster.chat_template);
    server.emplace(serve_options.http);
    server->start();
    log_info("listening on {}; the world is not ready yet", server->url());
  };
  const bool one_rank = request.layout.tp * request.layout.pp == 1 && serve_options.world.hostfile.empty();
  if (serve_options.world.start == WorldStart::kMpirun && (comm::started_by_launcher() || one_rank)) {
    const auto session = comm::MpiSession::start();
    init_log(serve_options.cluster.log_level, fmt::format("rank {}", session->rank()));
    if (session->rank() == 0) open_port();
    return run_hosted(*session, worker, request, serve, forming);
  }
  init_log(serve_options.cluster.log_level, "coordinator");
  open_port();
  return run_started(serve_options.world, request, serve, forming);
}

}  // namespace chorale::coordinator
