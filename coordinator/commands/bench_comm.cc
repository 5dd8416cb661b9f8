// chorale bench comm: latency and bandwidth of what a world exchanges. Under mpirun: all-reduce and send/recv over the
// ranks' own communicator, or over the backends that are named. Alone: the round trip of the control link.
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
#include "comm/world.h"
#include "coordinator/bench/rows.h"
#include "coordinator/commands/commands.h"

namespace chorale::coordinator {
namespace {

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

/// "8192", "8K", "4M": K and M count in 1024s.
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

/// Collective. Rows on rank 0 only.
std::vector<comm::CommBenchRow> measure_world(const comm::MpiSession& session, const std::vector<std::string>& backends,
                                              const comm::CommBenchOptions& options) {
  std::vector<comm::CommBenchRow> rows;
  uint64_t epoch = 1;
  for (const std::string& backend : backends) {
    comm::WorldOptions world;
    world.backend = backend;
    world.epoch = epoch++;
    const auto communicator = comm::make_world(session, world);
    const auto measured = comm::measure_communicator(*communicator, options);
    rows.insert(rows.end(), measured.begin(), measured.end());
  }
  return rows;
}

}  // namespace

int run_bench_comm(int argc, char** argv) {
  cxxopts::Options options(
      "chorale bench comm",
      "Latency and bandwidth of all-reduce and send/recv between ranks; alone, of the control link.");
  options.add_options()  //
      ("sizes", "bytes of a message, or of one rank's partial sums",
       cxxopts::value<std::vector<std::string>>()->default_value("8K,64K,1M"))  //
      ("backend", "shared_memory, mpi or hybrid, or several; the world's own choice if absent",
       cxxopts::value<std::vector<std::string>>())  //
      ("iterations", "of each size up to 64 KiB; fewer of larger ones",
       cxxopts::value<int>()->default_value("1000"))    //
      ("json", "print a JSON list instead of a table")  //
      ("h,help", "print this");
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help()
              << "\nexamples:\n  mpirun -n 2 chorale bench comm --backend shared_memory,mpi\n"
                 "  mpirun --hostfile hosts -n 8 chorale bench comm --sizes 8K,4M --json\n  chorale bench comm\n";
    return kExitOk;
  }
  if (!arguments.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "unexpected argument '{}'", arguments.unmatched().front());
  comm::CommBenchOptions bench_options;
  bench_options.sizes = read_sizes(arguments["sizes"].as<std::vector<std::string>>());
  bench_options.iterations = arguments["iterations"].as<int>();
  if (bench_options.iterations < 1)
    fail(ErrorCode::kInvalidArgument, "--iterations {}: expected at least 1", bench_options.iterations);
  std::vector<std::string> backends{""};
  if (arguments.count("backend") != 0) backends = arguments["backend"].as<std::vector<std::string>>();

  const auto session = comm::MpiSession::start();
  init_log(LogLevel::kWarn, fmt::format("rank {}", session->rank()));
  std::vector<comm::CommBenchRow> measured;
  if (session->size() > 1)
    measured = measure_world(*session, backends, bench_options);
  else
    for (const size_t bytes : bench_options.sizes)
      measured.push_back(comm::measure_control_link(bytes, bench_options.iterations));
  if (session->rank() != 0) return kExitOk;
  std::vector<bench::Row> rows;
  for (const comm::CommBenchRow& row : measured) rows.push_back(to_row(row, session->size()));
  std::cout << (arguments.count("json") != 0 ? bench::to_json(rows) + "\n" : bench::to_table(rows)) << std::flush;
  return kExitOk;
}

}  // namespace chorale::coordinator
