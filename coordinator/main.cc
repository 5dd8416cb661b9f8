// The executable: picks the subcommand, hands it the worker, and turns what it throws into one line and an exit code.
// This is the only file of the coordinator that may include the worker.
#include <algorithm>
#include <csignal>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>

#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/version.h"
#include "coordinator/commands/commands.h"
#include "worker/worker.h"

namespace {

using chorale::Error;
using chorale::ErrorCode;
namespace coordinator = chorale::coordinator;

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*run)(int argc, char** argv);
};

chorale::worker::WorkerOptions worker_options(const coordinator::WorkerStart& start) {
  chorale::worker::WorkerOptions options;
  options.control_host = start.control_host;
  options.control_port = start.control_port;
  options.secret = start.secret;
  options.epoch = start.epoch;
  options.device = start.device;
  options.comm = start.comm;
  options.hosts_coordinator = start.hosts_coordinator;
  options.threads = start.threads;
  options.record_path = start.record_path;
  options.looks_for_cublaslt = start.looks_for_cublaslt;
  return options;
}

int run_one_rank(const coordinator::WorkerStart& start, const chorale::comm::MpiSession& session) {
  return chorale::worker::run_worker(worker_options(start), session);
}

int replay_one_rank(const std::string& path, const coordinator::WorkerStart& start,
                    const chorale::comm::MpiSession& session) {
  return chorale::worker::replay_worker(path, worker_options(start), session);
}

coordinator::MachineSpeed measure_machine(int threads, chorale::parallel::Isa isa) {
  const chorale::worker::MachineSpeed speed = chorale::worker::measure_machine(threads, isa);
  return {speed.read_gbps, speed.f32_peak_gops, speed.bf16_peak_gops};
}

coordinator::DeviceSpeed measure_device(chorale::DeviceKind kind, int index) {
  const chorale::worker::DeviceSpeed speed = chorale::worker::measure_device(kind, index);
  return {speed.copy_gbps, speed.bf16_gops, speed.bf16_by};
}

std::vector<chorale::comm::CommBenchRow> bench_comm_of_ranks(const coordinator::CommBenchStart& start,
                                                             const chorale::comm::MpiSession& session) {
  return chorale::worker::bench_comm({.device = start.device,
                                      .comm = start.comm,
                                      .graphs = start.graphs,
                                      .backends = start.backends,
                                      .rounds = start.rounds},
                                     session);
}

constexpr coordinator::WorkerModule kWorker{run_one_rank, replay_one_rank, measure_machine, measure_device,
                                            bench_comm_of_ranks};

int serve(int argc, char** argv) { return coordinator::run_serve(argc, argv, kWorker); }
int work(int argc, char** argv) { return coordinator::run_worker(argc, argv, kWorker); }
int generate(int argc, char** argv) { return coordinator::run_generate(argc, argv, kWorker); }
int plan(int argc, char** argv) { return coordinator::run_plan(argc, argv, kWorker); }
int bench_engine(int argc, char** argv) { return coordinator::run_bench_engine(argc, argv, kWorker); }
int bench_comm(int argc, char** argv) { return coordinator::run_bench_comm(argc, argv, kWorker); }
int bench(int argc, char** argv);

constexpr Command kCommands[] = {
    {"serve", "serve a model over HTTP (OpenAI API)", serve},
    {"worker", "one rank of a world whose coordinator runs elsewhere", work},
    {"generate", "run jobs from a file or the command line, without a server", generate},
    {"submit", "client: send jobs to a server, stream the answers", coordinator::run_submit},
    {"tokenize", "text to token ids; chats to text", coordinator::run_tokenize},
    {"plan", "who holds what: shard map, bytes, KV capacity; which layout suits a cluster", plan},
    {"inspect", "what is in a checkpoint", coordinator::run_inspect},
    {"bench", "measure the engine, communication, a server, scaling", bench},
    {"doctor", "is this machine fit to run a world?", coordinator::run_doctor},
};

constexpr Command kBenches[] = {
    {"engine", "prefill and decode tokens/s of a model", bench_engine},
    {"comm", "latency and bandwidth of what ranks exchange", bench_comm},
    {"serve", "load on a running server", coordinator::run_bench_serve},
    {"scaling", "speed-up over layouts and hosts", coordinator::run_bench_scaling},
};

template <size_t N>
void print_help(std::ostream& out, std::string_view program, const Command (&commands)[N], std::string_view example) {
  out << "usage: " << program << " COMMAND [OPTIONS]\n\ncommands:\n";
  for (const Command& command : commands) out << fmt::format("  {:<10} {}\n", command.name, command.summary);
  out << "\n" << program << " COMMAND --help tells more.\nexamples:\n  " << example << "\n";
}

template <size_t N>
int dispatch(int argc, char** argv, std::string_view program, const Command (&commands)[N], std::string_view example) {
  const std::string_view name = argc > 1 ? argv[1] : "";
  if (name == "-h" || name == "--help" || name == "help") {
    print_help(std::cout, program, commands, example);
    return coordinator::kExitOk;
  }
  for (const Command& command : commands)
    if (command.name == name) return command.run(argc - 1, argv + 1);
  if (!name.empty()) std::cerr << fmt::format("error: unknown command '{}'\n", name);
  print_help(std::cerr, program, commands, example);
  return coordinator::kExitUsage;
}

int bench(int argc, char** argv) {
  return dispatch(argc, argv, "chorale bench", kBenches, "chorale bench engine --model M -p 512 -n 128 -r 5");
}

bool asks_for_help(int argc, char** argv) {
  return std::any_of(argv, argv + argc, [](std::string_view word) { return word == "--help" || word == "-h"; });
}

/// Clients have no world to lose: a server that does not answer them is a plain failure.
bool is_client(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  return command == "submit" || (command == "bench" && argc > 2 && std::string_view(argv[2]) == "serve");
}

int exit_code_of(const Error& error, bool has_world) {
  switch (error.code()) {
    case ErrorCode::kInvalidArgument: return coordinator::kExitUsage;
    case ErrorCode::kPeerLost: return has_world ? coordinator::kExitWorldLost : coordinator::kExitFailure;
    default: return coordinator::kExitFailure;
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a reader that left is an error of that write
  chorale::init_log(chorale::LogLevel::kWarn, "chorale");
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    std::cout << fmt::format("chorale {} ({})\n", chorale::kVersion, chorale::kBuildId);
    return coordinator::kExitOk;
  }
  // Under mpirun every rank reads the same command line; one of them talks about it.
  const bool speaks = chorale::env(chorale::EnvVar::kPmixRank).value_or("0") == "0";
  if (!speaks && asks_for_help(argc, argv)) return coordinator::kExitOk;
  try {  // what is said goes out in one piece: mpirun's own words may come between pieces
    return dispatch(argc, argv, "chorale", kCommands,
                    "mpirun -n 4 chorale serve --model M --tp 2 --pp 2\n  chorale generate --model M --chat 'Hello'");
  } catch (const Error& error) {
    if (speaks || error.code() != ErrorCode::kInvalidArgument) std::cerr << fmt::format("error: {}\n", error.what());
    return exit_code_of(error, !is_client(argc, argv));
  } catch (const cxxopts::exceptions::exception& error) {
    if (speaks)
      std::cerr << fmt::format("error: {}; chorale {} --help lists the options\n", error.what(),
                               argc > 1 ? argv[1] : "");
    return coordinator::kExitUsage;
  } catch (const std::exception& error) {  // a library's: out of memory, no more threads
    std::cerr << fmt::format("error: {}\n", error.what());
    return coordinator::kExitFailure;
  }
}
