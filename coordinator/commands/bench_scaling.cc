// chorale bench scaling: runs `chorale bench engine` once for every layout (and number of hosts) under mpirun, one
// after the other, and shows what more ranks bring: speed-up, efficiency, share of communication, pipeline bubble.
// Writes a table, JSON and a plot.
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>

#include "comm/base/error.h"
#include "comm/base/progress.h"
#include "coordinator/bench/scaling.h"
#include "coordinator/bench/scaling_plot.h"
#include "coordinator/child_process.h"
#include "coordinator/commands/commands.h"
#include "parallel/numerics.h"

namespace chorale::coordinator {
namespace {

struct ScalingOptions {
  std::vector<bench::ScalingPoint> points;
  std::string model;
  std::string threads;
  std::vector<std::string> engine_arguments;  // handed to each `bench engine`
  std::string hostfile;                       // empty: this host
  std::vector<std::string> host_lines;        // of the hostfile
  std::chrono::seconds timeout{0};            // of one layout
  std::string out;                            // prefix of the files; empty: none
  bool json = false;
};

/// Lines of an Open MPI hostfile that name a host.
std::vector<std::string> read_host_lines(const std::string& path) {
  std::ifstream file(path);
  if (!file) fail(ErrorCode::kNotFound, "--hostfile {}: cannot be opened", path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t\r") != std::string::npos) lines.push_back(line);
  }
  if (lines.empty())
    fail(ErrorCode::kInvalidArgument, "--hostfile {}: names no host; a line `node1 slots=4` a host", path);
  return lines;
}

/// A hostfile with the first `count` hosts, removed with its owner.
class TemporaryHostfile {
 public:
  TemporaryHostfile(const std::vector<std::string>& lines, int count)
      : path_((std::filesystem::temp_directory_path() / "chorale-hosts-XXXXXX").string()) {
    const int fd = mkstemp(path_.data());
    if (fd < 0) fail(ErrorCode::kSystem, "{}: cannot be made", path_);
    close(fd);
    std::ofstream file(path_);
    for (int i = 0; i < count; ++i) file << lines[static_cast<size_t>(i)] << "\n";
  }
  ~TemporaryHostfile() { std::filesystem::remove(path_, ignored_); }
  TemporaryHostfile(const TemporaryHostfile&) = delete;
  TemporaryHostfile& operator=(const TemporaryHostfile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::error_code ignored_;
};

std::vector<std::string> command_of(const ScalingOptions& options, const bench::ScalingPoint& point,
                                    const std::string& hostfile) {
  std::vector<std::string> command{
      "mpirun", "--oversubscribe", "--bind-to", "none", "-n", std::to_string(point.num_ranks())};
  if (geteuid() == 0) command.insert(command.begin() + 1, "--allow-run-as-root");
  if (!hostfile.empty()) {
    const int ranks_of_host = (point.num_ranks() + point.num_hosts - 1) / point.num_hosts;
    command.insert(command.end(), {"--hostfile", hostfile, "--map-by", fmt::format("ppr:{}:node", ranks_of_host)});
  }
  command.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
  command.insert(command.end(), {"bench", "engine", "--json", "--model", options.model, "--threads", options.threads,
                                 "--tp", std::to_string(point.tp), "--pp", std::to_string(point.pp)});
  command.insert(command.end(), options.engine_arguments.begin(), options.engine_arguments.end());
  return command;
}

/// The last line that says something, without the log's colours or mpirun's boxes.
std::string reason_in(const std::string& output) {
  std::string reason;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);)
    if (line.find("error") != std::string::npos || reason.empty()) reason = line;
  return reason.empty() ? "it printed nothing" : reason;
}

/// Throws Error when the layout cannot be run.
std::vector<bench::ScalingResult> run_point(const ScalingOptions& options, const bench::ScalingPoint& point) {
  std::optional<TemporaryHostfile> hostfile;
  if (!options.hostfile.empty()) hostfile.emplace(options.host_lines, point.num_hosts);
  const CommandResult result =
      run_command(command_of(options, point, hostfile ? hostfile->path() : ""), Deadline::after(options.timeout));
  if (!result.exit_code)
    fail(ErrorCode::kDeadlineExceeded, "layout {}: not done after {} s; give --timeout or fewer tokens", point.name(),
         options.timeout.count());
  if (*result.exit_code != 0)
    fail(ErrorCode::kSystem, "layout {}: exit code {}: {}", point.name(), *result.exit_code, reason_in(result.output));
  return bench::parse_engine_output(point, result.output);
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) fail(ErrorCode::kSystem, "{}: cannot be written", path);
  std::cerr << "wrote " << path << "\n";
}

int run_sweep(const ScalingOptions& options) {
  ProgressBar progress("layouts", static_cast<int64_t>(options.points.size()));
  std::vector<bench::ScalingResult> results;
  std::vector<std::string> failures;
  for (size_t i = 0; i < options.points.size(); ++i) {
    progress.update(static_cast<int64_t>(i), options.points[i].name());
    try {
      const auto of_point = run_point(options, options.points[i]);
      results.insert(results.end(), of_point.begin(), of_point.end());
    } catch (const Error& error) {  // the other layouts still say something
      failures.emplace_back(error.what());
    }
  }
  progress.update(static_cast<int64_t>(options.points.size()));
  for (const std::string& failure : failures) std::cerr << "error: " << failure << "\n";
  if (results.empty()) return kExitFailure;
  const std::vector<bench::ScalingRow> rows = bench::compare(results);
  std::cout << (options.json ? bench::to_engine_json(results) : bench::to_table(rows)) << std::flush;
  if (!options.out.empty()) {
    const std::string model = std::filesystem::path(options.model).filename().string();
    const std::string threads = options.threads == "1" ? "1 thread" : options.threads + " threads";
    write_file(options.out + ".json", bench::to_json(rows));
    write_file(options.out + ".svg",
               bench::plot_scaling(rows, fmt::format("{}, {} a rank; {}", model, threads, parallel::cpu_model_name())));
  }
  return failures.empty() ? kExitOk : kExitFailure;
}

ScalingOptions read_options(const cxxopts::ParseResult& arguments) {
  ScalingOptions options;
  if (arguments.count("model") == 0) fail(ErrorCode::kInvalidArgument, "--model is missing: a folder or a GGUF file");
  options.model = arguments["model"].as<std::string>();
  const int threads = arguments["threads"].as<int>();
  if (threads < 1) fail(ErrorCode::kInvalidArgument, "--threads {}: expected at least 1", threads);
  options.threads = std::to_string(threads);
  options.timeout = std::chrono::seconds(arguments["timeout"].as<int>());
  if (options.timeout.count() < 1)
    fail(ErrorCode::kInvalidArgument, "--timeout {}: expected at least 1 s", options.timeout.count());
  options.out = arguments["out"].as<std::string>();
  options.json = arguments.count("json") != 0;
  std::vector<int> host_counts{1};
  if (arguments.count("hostfile") != 0) {
    options.hostfile = arguments["hostfile"].as<std::string>();
    options.host_lines = read_host_lines(options.hostfile);
    host_counts = {static_cast<int>(options.host_lines.size())};
  }
  if (arguments.count("hosts") != 0) host_counts = arguments["hosts"].as<std::vector<int>>();
  for (const int count : host_counts)
    if (count > 1 && count > static_cast<int>(options.host_lines.size()))
      fail(ErrorCode::kInvalidArgument, "--hosts {}: the hostfile names {}", count, options.host_lines.size());
  options.points = bench::parse_layouts(arguments["layouts"].as<std::string>(), host_counts);
  options.engine_arguments = arguments.unmatched();
  return options;
}

}  // namespace

int run_bench_scaling(int argc, char** argv) {
  cxxopts::Options options("chorale bench scaling",
                           "Speed-up, efficiency, communication and bubble over layouts and hosts.");
  options.allow_unrecognised_options();
  options.add_options()                                                                                           //
      ("model", "Hugging Face folder or .gguf file, the same path on every host", cxxopts::value<std::string>())  //
      ("layouts", "TPxPP, separated by commas; the first is what the others are compared with",
       cxxopts::value<std::string>()->default_value("1x1,2x1,1x2,2x2"))                                             //
      ("threads", "compute threads of each rank", cxxopts::value<int>()->default_value("1"))                        //
      ("hostfile", "Open MPI hostfile; ranks are spread over its hosts evenly", cxxopts::value<std::string>())      //
      ("hosts", "numbers of hosts to try, from the top of the hostfile (all)", cxxopts::value<std::vector<int>>())  //
      ("out", "write PREFIX.json and PREFIX.svg", cxxopts::value<std::string>()->default_value("scaling"))          //
      ("json", "print a JSON list of every layout's results instead of the table")                                  //
      ("timeout", "seconds for one layout", cxxopts::value<int>()->default_value("1800"))                           //
      ("h,help", "print this");
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help() << "\nOther options are handed to `chorale bench engine` (-p -n -b -r --dtype ...).\n"
              << "\nexamples:\n  chorale bench scaling --model M --layouts 1x1,2x1,1x2,2x2 -p 512 -n 128 -r 3\n"
                 "  chorale bench scaling --model M --hostfile hosts --hosts 1,2,4 --layouts 4x1,2x2 --out "
                 "docs/results/scaling\n";
    return kExitOk;
  }
  return run_sweep(read_options(arguments));
}

}  // namespace chorale::coordinator
