// One function per subcommand of `chorale`. main() picks it by name; argv[0] is the subcommand's name. Each returns an
// exit code below; usage errors arrive as cxxopts exceptions or Error{kInvalidArgument} and become kExitUsage in
// main().
#pragma once

#include "coordinator/worker_entry.h"

namespace chorale::coordinator {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;
constexpr int kExitWorldLost = 3;

int run_tokenize(int argc, char** argv);
int run_inspect(int argc, char** argv);
int run_submit(int argc, char** argv);
int run_doctor(int argc, char** argv);
int run_bench_serve(int argc, char** argv);
int run_bench_comm(int argc, char** argv, const WorkerModule& worker);
int run_bench_engine(int argc, char** argv, const WorkerModule& worker);
int run_bench_scaling(int argc, char** argv);
int run_plan(int argc, char** argv, const WorkerModule& worker);
int run_serve(int argc, char** argv, const WorkerModule& worker);
int run_worker(int argc, char** argv, const WorkerModule& worker);
int run_generate(int argc, char** argv, const WorkerModule& worker);

}  // namespace chorale::coordinator
