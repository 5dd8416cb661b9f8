// The result rows that every bench prints: one JSON format for scripts, one table for people. The fixed keys are the
// same for all benches; what only one of them knows goes into `extra`, behind them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace chorale::coordinator::bench {

/// Values that do not apply or were not measured are null in JSON and "-" in the table; which bench fills which stands
/// in README.md.
struct Row {
  std::string test;  // "pp512", "tg128", "tg128 x16", "all_reduce 8 KiB", "ttft"
  int n = 0;         // samples behind mean, p50, p99
  double mean = 0;
  double p50 = 0;  // percentiles of the samples: of rates the high p99 is the best, of times the worst
  double p99 = 0;
  std::string unit;            // "tok/s", "us", "ms"
  std::optional<int> threads;  // of each rank
  std::optional<int> tp;
  std::optional<int> pp;
  std::string numerics_class;       // empty: null
  std::optional<double> read_gbps;  // measured on this machine, beside the samples
  std::optional<double> peak_gops;  // of the numerics class, measured
  std::optional<double> fraction;   // of the limit that these two set
  std::string peak_by;              // what multiplied for peak_gops where that is a choice; empty: no key
  std::vector<std::pair<std::string, double>> extra;
};

/// One row with mean and percentiles of `samples` filled in. REQUIRES: samples not empty.
Row make_row(std::string test, std::string unit, std::span<const double> samples);

/// [{test, n, mean, p50, p99, unit, threads, tp, pp, class, read_gbps, peak_gops, fraction, peak_by?, ...extra}] on one
/// line.
std::string to_json(std::span<const Row> rows);
/// Right-aligned columns under a header; columns that no row fills are left out. Extra values name further columns, in
/// the order in which rows first have them.
std::string to_table(std::span<const Row> rows);

/// "8 KiB", "4 MiB", "12 B"
std::string show_bytes(uint64_t bytes);

}  // namespace chorale::coordinator::bench
