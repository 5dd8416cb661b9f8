// chorale bench engine: tokens/s of prefill and decode, alone or under mpirun, in llama-bench's terms: ppP is a prompt
// of P tokens, tgN are N tokens generated after a prompt of one, tgNxS the same for S streams together. Each repetition
// stands between two looks at the machine's read bandwidth, and is compared with what that bandwidth and the measured
// peak allow. GPUs are measured once, before the model is loaded, and say how long they had nothing to do between
// steps.
#include <algorithm>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>

#include "comm/base/device.h"
#include "comm/base/env.h"
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/progress.h"
#include "comm/mpi_session.h"
#include "coordinator/bench/device_gaps.h"
#include "coordinator/bench/limits.h"
#include "coordinator/bench/load.h"
#include "coordinator/bench/rows.h"
#include "coordinator/bench/statistics.h"
#include "coordinator/commands/cluster_options.h"
#include "coordinator/commands/commands.h"
#include "coordinator/engine.h"
#include "coordinator/hosted_world.h"

namespace chorale::coordinator {
namespace {

enum class Output { kTable, kJson };

struct EngineBenchOptions {
  ClusterOptions cluster;
  std::vector<int> prompt_tokens;
  std::vector<int> new_tokens;
  std::vector<int> streams;
  int repetitions = 5;
  Output output = Output::kTable;
};

/// One test of the sweep: a prompt whose first token is sampled, or tokens after a prompt of one.
struct Test {
  enum class Kind { kPrefill, kDecode };
  Kind kind;
  bench::LoadShape shape;

  std::string name() const {
    if (kind == Kind::kPrefill) return fmt::format("pp{}", shape.prompt_tokens);
    return shape.streams == 1 ? fmt::format("tg{}", shape.new_tokens)
                              : fmt::format("tg{}x{}", shape.new_tokens, shape.streams);
  }
  int64_t num_tokens() const {
    return kind == Kind::kPrefill ? shape.prompt_tokens : static_cast<int64_t>(shape.streams) * shape.new_tokens;
  }
};

std::vector<Test> tests_of(const EngineBenchOptions& options) {
  std::vector<Test> tests;
  for (const int tokens : options.prompt_tokens)
    if (tokens > 0) tests.push_back({Test::Kind::kPrefill, {.streams = 1, .prompt_tokens = tokens, .new_tokens = 1}});
  for (const int tokens : options.new_tokens)
    for (const int streams : options.streams)
      if (tokens > 0)
        tests.push_back({Test::Kind::kDecode, {.streams = streams, .prompt_tokens = 1, .new_tokens = tokens}});
  return tests;
}

constexpr std::chrono::seconds kReportPatience{60};
constexpr std::chrono::hours kNever{24};

/// What all devices of the world reach together, where they are GPUs: the first of this host's, times how many the
/// ranks use. Before the world forms, which takes the devices' memory.
std::optional<DeviceSpeed> measure_devices(const WorkerModule& worker, const comm::WorldMap& map, DeviceKind kind) {
  const bool has_figures = kind == DeviceKind::kCuda ||  // the emulator's mean nothing
                           (kind == DeviceKind::kEmulator && env(EnvVar::kEmulatorFigures) == "1");
  const DeviceEntry* entry = has_figures && map.rank == 0 ? DeviceRegistry::find(to_string(kind)) : nullptr;
  const int num_devices = entry == nullptr ? 0 : entry->survey().num_devices;
  if (num_devices == 0) return std::nullopt;
  try {
    DeviceSpeed speed = worker.measure_device(kind, map.local_rank());
    const int num_used = std::min(map.ranks_on_host(), num_devices) * map.num_hosts();
    std::cerr << fmt::format("each of {} device(s) copies {:.0f} GB/s and multiplies bf16 at {:.1f} Tflop/s ({})\n",
                             num_used, speed.copy_gbps, speed.bf16_gops * 1e-3, speed.bf16_by);
    speed.copy_gbps *= num_used;
    speed.bf16_gops *= num_used;
    return speed;
  } catch (const Error& error) {
    log_warn("the device is not measured, so that rates are set beside no limit: {}", error.what());
    return std::nullopt;
  }
}

/// The yardstick: what the cores that the ranks of this host use reach together, times the hosts, while the ranks
/// idle; or what was measured of devices.
class Machine {
 public:
  Machine(const WorkerModule& worker, const comm::WorldMap& map, const parallel::ClusterPlan& plan,
          std::optional<DeviceSpeed> devices)
      : worker_(worker),
        is_cpu_(plan.numerics.device == "cpu"),
        devices_(std::move(devices)),
        threads_(
            std::clamp(plan.threads * map.ranks_on_host(), 1, static_cast<int>(std::thread::hardware_concurrency()))),
        num_hosts_(map.num_hosts()),
        isa_(plan.numerics.isa) {}
  /// All 0 where nothing is known of the ranks' devices.
  MachineSpeed measure() const {
    if (devices_) return {.read_gbps = devices_->copy_gbps, .f32_peak_gops = 0, .bf16_peak_gops = devices_->bf16_gops};
    if (!is_cpu_) return {};
    MachineSpeed speed = worker_.measure_machine(threads_, isa_);
    speed.read_gbps *= num_hosts_;
    speed.f32_peak_gops *= num_hosts_;
    speed.bf16_peak_gops *= num_hosts_;
    return speed;
  }
  /// What reached the peak, where that is a choice.
  std::string peak_by() const { return devices_ ? devices_->bf16_by : ""; }

 private:
  const WorkerModule& worker_;
  bool is_cpu_;
  std::optional<DeviceSpeed> devices_;
  int threads_;
  int num_hosts_;
  parallel::Isa isa_;
};

/// Times of one test's repetitions, kept or not.
struct Repetition {
  bench::Sample rate;  // tokens/s
  bench::LoadTimes times;
  bench::RunCosts costs;
  bench::DeviceGaps gaps;
};

class EngineBench {
 public:
  EngineBench(const EngineBenchOptions& options, const Machine& machine, std::unique_ptr<World> world)
      : options_(options),
        machine_(machine),
        engine_(engine_options(), nullptr, std::move(world)),
        cost_(bench::cost_of(engine_.plan())) {}

  std::vector<bench::Row> run() {
    const std::vector<Test> tests = tests_of(options_);
    ProgressBar progress("repetitions", static_cast<int64_t>(tests.size()) * options_.repetitions);
    std::vector<bench::Row> rows;
    for (const Test& test : tests) run(test, progress, rows);
    return rows;
  }

 private:
  EngineOptions engine_options() {
    EngineOptions engine = options_.cluster.engine;
    engine.prefix_caching = PrefixCaching::kOff;  // the same prompt must be computed again
    engine.max_waiting_jobs = std::numeric_limits<int>::max();
    engine.probe_interval = kNever;  // a probe is a step without work: no device shall be idle after it
    engine.on_stage_report = [this](const parallel::StageReport& report) { reports_.add(report); };
    return engine;
  }

  void warm_up(const Test& test) {
    constexpr int kFewTokens = 8;
    bench::LoadShape shape = test.shape;
    shape.new_tokens = std::min(shape.new_tokens, kFewTokens);
    bench::run_load(engine_, shape);
    take_reports();
  }

  std::vector<parallel::StageReport> take_reports() {
    return reports_.take(engine_.plan().layout.pp, engine_.stats().last_step, Deadline::after(kReportPatience));
  }

  /// Repeats until enough repetitions saw a steady machine, at most twice as often as asked.
  void run(const Test& test, ProgressBar& progress, std::vector<bench::Row>& rows) {
    warm_up(test);
    std::vector<Repetition> repetitions;
    std::vector<bench::Sample> rates;
    MachineSpeed before = machine_.measure();
    double peak = peak_of(before);
    bench::Selection selection;
    do {
      const EngineStats stats = engine_.stats();
      Repetition repetition{.rate = {}, .times = bench::run_load(engine_, test.shape), .costs = {}, .gaps = {}};
      repetition.gaps = bench::gaps_of(take_reports());
      const MachineSpeed after = machine_.measure();
      const double seconds = repetition.times.seconds;
      repetition.rate = {static_cast<double>(test.num_tokens()) / seconds, before.read_gbps, after.read_gbps};
      repetition.costs = bench::costs_of(stats, engine_.stats(), seconds, test.num_tokens());
      peak = std::max(peak, peak_of(after));
      before = after;
      rates.push_back(repetition.rate);
      repetitions.push_back(std::move(repetition));
      selection = bench::select(rates);
      progress.update(num_done_ + std::min<int64_t>(static_cast<int64_t>(selection.kept.size()), options_.repetitions),
                      test.name());
    } while (num_counted(selection) < options_.repetitions &&
             static_cast<int>(repetitions.size()) < 2 * options_.repetitions);
    num_done_ += options_.repetitions;
    say_what_was_dropped(test, selection, repetitions.size());
    rows.push_back(make_row(test, repetitions, selection, peak));
    add_gaps(test, repetitions, selection, rows);
  }

  /// Repetitions that count, less those kept only because none was steady.
  static int num_counted(const bench::Selection& selection) {
    const bool none_was_steady = selection.num_flipped == selection.kept.size() && selection.num_flipped > 0;
    return none_was_steady ? 0 : static_cast<int>(selection.kept.size());
  }

  static void say_what_was_dropped(const Test& test, const bench::Selection& selection, size_t num_repetitions) {
    if (selection.kept.size() == num_repetitions && selection.num_flipped == 0) return;
    std::cerr << fmt::format(
        "{}: of {} repetitions {} saw the machine's read bandwidth change and {} saw another state than most; {}\n",
        test.name(), num_repetitions, selection.num_flipped, selection.num_other_state,
        selection.kept.size() == num_repetitions ? "none was steady, so all are kept" : "they are dropped");
  }

  bench::Row make_row(const Test& test, const std::vector<Repetition>& repetitions, const bench::Selection& selection,
                      double peak_gops) const {
    std::vector<double> rates, reads, fractions, gaps, comm_shares, bubbles, overheads, coordinator;
    for (const size_t i : selection.kept) {
      const Repetition& repetition = repetitions[i];
      rates.push_back(repetition.rate.value);
      reads.push_back(repetition.rate.read_gbps());
      const double limit = limit_of(test, repetition.rate.read_gbps(), peak_gops);
      if (limit > 0) fractions.push_back(repetition.rate.value / limit);
      gaps.insert(gaps.end(), repetition.times.token_gaps_ms.begin(), repetition.times.token_gaps_ms.end());
      comm_shares.push_back(repetition.costs.comm_share);
      bubbles.push_back(repetition.costs.bubble);
      overheads.push_back(repetition.costs.overhead_us_per_token);
      coordinator.push_back(repetition.costs.coordinator_us_per_token);
    }
    bench::Row row = of_plan(bench::make_row(test.name(), "tok/s", rates));
    if (const double read_gbps = bench::mean(reads); read_gbps > 0) row.read_gbps = read_gbps;
    if (peak_gops > 0) {  // no instruction set, no peak to measure
      row.peak_gops = peak_gops;
      row.peak_by = machine_.peak_by();
    }
    if (!fractions.empty()) row.fraction = bench::mean(fractions);
    row.extra = {{"streams", test.shape.streams},
                 {"comm_share", bench::mean(comm_shares)},
                 {"bubble", bench::mean(bubbles)},
                 {"overhead_us_per_token", bench::mean(overheads)},
                 {"coordinator_us_per_token", bench::mean(coordinator)},
                 {"num_dropped", static_cast<double>(repetitions.size() - selection.kept.size())}};
    if (!gaps.empty()) {
      row.extra.emplace_back("token_ms_p50", bench::percentile(gaps, 50));
      row.extra.emplace_back("token_ms_p99", bench::percentile(gaps, 99));
    }
    return row;
  }

  bench::Row of_plan(bench::Row row) const {
    const parallel::ClusterPlan& plan = engine_.plan();
    row.threads = plan.threads;
    row.tp = plan.layout.tp;
    row.pp = plan.layout.pp;
    row.numerics_class = plan.numerics.to_string();
    return row;
  }

  /// A row more where devices told how long they had nothing to do between steps.
  void add_gaps(const Test& test, const std::vector<Repetition>& repetitions, const bench::Selection& selection,
                std::vector<bench::Row>& rows) const {
    bench::DeviceGaps gaps;
    for (const size_t i : selection.kept) gaps.add(repetitions[i].gaps);
    if (gaps.gaps_us.empty()) return;
    bench::Row row = of_plan(bench::make_row(test.name() + " gap", "us", gaps.gaps_us));
    row.extra = {{"streams", test.shape.streams}, {"device_idle", gaps.idle_share()}};
    rows.push_back(std::move(row));
  }

  /// Tokens/s; 0: not known.
  double limit_of(const Test& test, double read_gbps, double peak_gops) const {
    if (test.kind == Test::Kind::kPrefill) return bench::prefill_limit(cost_, test.shape.prompt_tokens, peak_gops);
    return bench::decode_limit(cost_, test.shape.streams, (test.shape.new_tokens + 1) / 2.0, read_gbps, peak_gops);
  }

  double peak_of(const MachineSpeed& speed) const {
    const parallel::NumericsClass& numerics = engine_.plan().numerics;
    // 16-bit types of either kind go through a device's tensor cores at one rate.
    const bool is_bf16 =
        numerics.device == "cpu" ? numerics.isa == parallel::Isa::kAvx512Bf16 : numerics.compute != DType::kF32;
    return is_bf16 ? speed.bf16_peak_gops : speed.f32_peak_gops;
  }

  const EngineBenchOptions& options_;
  const Machine& machine_;
  bench::ReportLog reports_;  // the engine tells it until it has gone
  Engine engine_;
  bench::ModelCost cost_;
  int64_t num_done_ = 0;
};

void check_positive(const std::string& option, const std::vector<int>& values, int least) {
  for (const int value : values)
    if (value < least) fail(ErrorCode::kInvalidArgument, "--{} {}: expected at least {}", option, value, least);
  if (values.empty()) fail(ErrorCode::kInvalidArgument, "--{}: expected a number, or several with commas", option);
}

/// Room for what the tests need and no more: a bench should not claim a quarter of the memory for its KV cache.
void choose_limits(const cxxopts::ParseResult& arguments, EngineBenchOptions& options) {
  ClusterRequest& request = options.cluster.request;
  const int longest = 1 + std::max(std::ranges::max(options.prompt_tokens), std::ranges::max(options.new_tokens));
  if (arguments.count("max-model-len") == 0) request.max_model_len = longest;
  if (arguments.count("max-num-seqs") == 0) request.max_num_seqs = std::ranges::max(options.streams);
}

EngineBenchOptions read_options(const cxxopts::ParseResult& arguments) {
  EngineBenchOptions options;
  options.cluster = read_cluster_options(arguments);
  options.prompt_tokens = arguments["prompt-tokens"].as<std::vector<int>>();
  options.new_tokens = arguments["new-tokens"].as<std::vector<int>>();
  options.streams = arguments["batch"].as<std::vector<int>>();
  options.repetitions = arguments["repetitions"].as<int>();
  options.output = arguments.count("json") != 0 ? Output::kJson : Output::kTable;
  check_positive("prompt-tokens", options.prompt_tokens, 0);
  check_positive("new-tokens", options.new_tokens, 0);
  check_positive("batch", options.streams, 1);
  check_positive("repetitions", {options.repetitions}, 1);
  if (tests_of(options).empty())
    fail(ErrorCode::kInvalidArgument, "nothing to measure: --prompt-tokens and --new-tokens are 0");
  choose_limits(arguments, options);
  return options;
}

}  // namespace

int run_bench_engine(int argc, char** argv, const WorkerModule& worker) {
  cxxopts::Options options("chorale bench engine",
                           "Prefill and decode tokens/s of a model, beside what the machine allows.");
  add_cluster_options(options);
  options.add_options("Bench")  //
      ("p,prompt-tokens", "prefill tests: prompt lengths; 0: none",
       cxxopts::value<std::vector<int>>()->default_value("512"))  //
      ("n,new-tokens", "decode tests: tokens to generate; 0: none",
       cxxopts::value<std::vector<int>>()->default_value("128"))                                                      //
      ("b,batch", "decode tests: streams that run together", cxxopts::value<std::vector<int>>()->default_value("1"))  //
      ("r,repetitions", "of each test, after a warm-up", cxxopts::value<int>()->default_value("5"))                   //
      ("json", "print a JSON list instead of a table")                                                                //
      ("h,help", "print this");
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help()
              << "\nexamples:\n  chorale bench engine --model M --threads 2 -p 512 -n 128 -b 1,16\n"
                 "  mpirun -n 2 chorale bench engine --model M --tp 2 --threads 1 --json\n";
    return kExitOk;
  }
  if (!arguments.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "unexpected argument '{}'", arguments.unmatched().front());
  const EngineBenchOptions bench_options = read_options(arguments);
  const auto session = comm::MpiSession::start();
  init_log(bench_options.cluster.log_level, fmt::format("rank {}", session->rank()));
  const ClusterRequest& request = bench_options.cluster.request;
  const auto devices = measure_devices(worker, session->map(), request.device.value_or(best_device()));
  return run_hosted(*session, worker, request, [&](std::unique_ptr<World> world) {
    const Machine machine(worker, session->map(), world->plan(), devices);
    const std::vector<bench::Row> rows = EngineBench(bench_options, machine, std::move(world)).run();
    std::cout << (bench_options.output == Output::kJson ? bench::to_json(rows) + "\n" : bench::to_table(rows))
              << std::flush;
    return kExitOk;
  });
}

}  // namespace chorale::coordinator
