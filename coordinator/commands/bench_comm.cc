// chorale bench comm: latency and bandwidth of what a world exchanges. Under mpirun: between the ranks, on the devices
// that they would compute on (worker/comm_bench.h). Alone: the round trip of the control link.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/bench_comm.h"
#include "comm/mpi_session.h"
#include "coordinator/bench/rows.h"
#include "coordinator/commands/cluster_options.h"
#include "coordinator/commands/commands.h"
#include "coordinator/commands/parse_arguments.h"

namespace chorale::coordinator {
namespace {
using parallel::DeviceComm;

constexpr uint64_t kMostBytes = uint64_t{1} << 30;

/// One thread of each rank measures, and a world of n ranks stands for tp=n. No model runs: no class, no limit.
bench::Row to_row(const comm::CommBenchRow& measured, int num_ranks) {
  bench::Row row;
  row.test = fmt::format("{} {} {}", measured.test, measured.backend, bench::show_bytes(measured.bytes));
  row.n = measured.num_samples;
  row.mean = measured.mean_us;
  row.p50 = measured.p50_us;
  row.p99 = measured.p99_us;
  row.unit = "us";
  row.threads = 1;
  row.tp = num_ranks;
  row.pp = 1;
  row.extra = {{"bytes", static_cast<double>(measured.bytes)},
               {"ranks", measured.ranks},
               {"algbw_gbps", measured.algbw_gbps},
               {"busbw_gbps", measured.busbw_gbps}};
  return row;
}

/// "8192", "8K", "4M": K and M count in 1024s. Nothing where it is none, or too large.
std::optional<uint64_t> parse_bytes(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit = text.substr(static_cast<size_t>(end - text.data()));
  if (error != std::errc() || number > kMostBytes) return std::nullopt;
  if (unit.empty()) return number;
  if (unit == "K") return number << 10;
  if (unit == "M") return number << 20;
  return std::nullopt;
}

std::vector<size_t> read_sizes(const std::vector<std::string>& texts) {
  std::vector<size_t> sizes;
  for (const std::string& text : texts) {
    const auto bytes = parse_bytes(text);
    if (!bytes || *bytes == 0 || *bytes % sizeof(float) != 0 || *bytes > kMostBytes)
      fail(ErrorCode::kInvalidArgument, "--sizes {}: expected multiples of 4 bytes as in 8K,1M, up to 1024M", text);
    sizes.push_back(*bytes);
  }
  return sizes;
}

/// Devices and what they talk over are the ranks': alone there is the control link only.
void refuse_alone(const CommBenchStart& start) {
  if (start.device.value_or(DeviceKind::kCpu) == DeviceKind::kCpu &&
      start.comm.value_or(DeviceComm::kMpi) == DeviceComm::kMpi)
    return;
  fail(ErrorCode::kInvalidArgument,
       "--device and --comm say what ranks exchange; this is one: mpirun -n 2 chorale bench comm ...");
}

cxxopts::Options make_options() {
  cxxopts::Options options("chorale bench comm",
                           "Latency and bandwidth of what ranks exchange: all-reduce and send/recv, on devices also "
                           "all-gather and NCCL's own all-reduce. Alone: the control link.");
  options.add_options()  //
      ("sizes", "bytes of a message, a sum, or all parts of an all-gather",
       cxxopts::value<std::vector<std::string>>()->default_value("8K,64K,1M"))  //
      ("device", "auto, cpu, cuda, or emulator (runs the GPU's kernels on the CPU, for tests)",
       cxxopts::value<std::string>()->default_value("auto"))  //
      ("comm", "auto, nccl, mpi: what ranks on GPUs exchange activations over",
       cxxopts::value<std::string>()->default_value("auto"))  //
      ("backend", "shared_memory, mpi or hybrid, or several, for memory of the host; the world's own choice if absent",
       cxxopts::value<std::vector<std::string>>())                               //
      ("no-cuda-graphs", "no all-reduces as decode steps have them, in graphs")  //
      ("iterations", "of each size up to 64 KiB; fewer of larger ones",
       cxxopts::value<int>()->default_value("1000"))    //
      ("json", "print a JSON list instead of a table")  //
      ("h,help", "print this");
  return options;
}

constexpr std::string_view kHelp = R"(
rows, as TEST BACKEND SIZE; times are rank 0's, bandwidths as nccl-tests count them:
  all_reduce       the sum that layers end in, in the order of the tree, of 16 leaves; each is checked once, with ==
  nccl_all_reduce  over NCCL: its own all-reduce of as many values, in any order
  ..._graph        over NCCL: the same, 20 in a row in a CUDA graph
  all_gather       on devices
  send_recv        from rank 0 to the last and back, half of it; on devices by the link between two stages
BACKEND is mpi, shared_memory or hybrid, on devices DEVICE/nccl, or DEVICE/BACKEND by way of pinned host memory.
Times are the host's clock's; on devices the device's, between events in its stream, from the end of one operation to
that of the next: over NCCL the host gives up to 20 in advance and waits for the last. Those of the emulator mean nothing.

examples:
  mpirun -n 2 chorale bench comm --device cpu --backend shared_memory,mpi
  mpirun --hostfile hosts -n 8 chorale bench comm --sizes 8K,4M --json
  mpirun -n 4 chorale bench comm --device cuda --comm nccl --sizes 8K,64K,1M,16M
  chorale bench comm
)";

}  // namespace

int run_bench_comm(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options = make_options();
  const auto arguments = parse_arguments(options, argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help() << kHelp;
    return kExitOk;
  }
  CommBenchStart start;
  start.rounds.sizes = read_sizes(arguments["sizes"].as<std::vector<std::string>>());
  start.rounds.iterations = arguments["iterations"].as<int>();
  if (start.rounds.iterations < 1)
    fail(ErrorCode::kInvalidArgument, "--iterations {}: expected at least 1", start.rounds.iterations);
  start.rounds.warmup = std::min(start.rounds.warmup, start.rounds.iterations);
  start.device = parse_device(arguments["device"].as<std::string>());
  start.comm = parallel::device_comm_from_string(arguments["comm"].as<std::string>());
  if (arguments.count("no-cuda-graphs") != 0) start.graphs = parallel::CudaGraphs::kOff;
  if (arguments.count("backend") != 0) {
    start.backends = arguments["backend"].as<std::vector<std::string>>();
    if (start.comm == DeviceComm::kNccl)
      fail(ErrorCode::kInvalidArgument, "--backend moves memory of the host, --comm nccl that of devices: one of them");
    start.comm = DeviceComm::kMpi;
  }

  const auto session = comm::MpiSession::start();
  init_log(LogLevel::kWarn, fmt::format("rank {}", session->rank()));
  std::vector<comm::CommBenchRow> measured;
  if (session->size() > 1) {
    measured = worker.bench_comm(start, *session);
  } else {
    refuse_alone(start);
    for (const size_t bytes : start.rounds.sizes)
      measured.push_back(comm::measure_control_link(bytes, start.rounds.iterations));
  }
  if (session->rank() != 0) return kExitOk;
  std::vector<bench::Row> rows;
  for (const comm::CommBenchRow& row : measured) rows.push_back(to_row(row, session->size()));
  std::cout << (arguments.count("json") != 0 ? bench::to_json(rows) + "\n" : bench::to_table(rows)) << std::flush;
  return kExitOk;
}

}  // namespace chorale::coordinator
