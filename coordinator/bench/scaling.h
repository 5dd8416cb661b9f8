// A sweep over layouts: which to run, and what their results say beside the first. `bench scaling` runs them; this file
// starts nothing.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace chorale::coordinator::bench {

struct ScalingPoint {
  int tp = 1;
  int pp = 1;
  int num_hosts = 1;
  int num_ranks() const { return tp * pp; }
  std::string name() const;  // "2x1", "2x1 on 2 hosts"
  bool operator==(const ScalingPoint&) const = default;
};

/// "1x1,2x1,1x2" (tp x pp) times every number of hosts; a layout with fewer ranks than hosts is left out there. Throws
/// Error{kInvalidArgument} naming the part that is wrong.
std::vector<ScalingPoint> parse_layouts(std::string_view layouts, const std::vector<int>& host_counts);

/// One test of one point, as `bench engine --json` printed it.
struct ScalingResult {
  ScalingPoint point;
  std::string test;
  int threads = 1;  // of each rank
  double tokens_per_second = 0;
  double comm_share = 0;
  double bubble = 0;
  std::optional<double> fraction;
  std::string row;  // the JSON object that it was read from
};

/// The rows of `bench engine --json` anywhere in `output` (warnings may stand around them). Throws Error{kCorrupt} when
/// there are none.
std::vector<ScalingResult> parse_engine_output(const ScalingPoint& point, std::string_view output);

/// A result beside the first result of the same test.
struct ScalingRow {
  ScalingResult result;
  double speed_up = 1;
  double resources = 1;   // compute threads of the world, over those of the first
  double efficiency = 1;  // speed_up / resources
};
std::vector<ScalingRow> compare(std::span<const ScalingResult> results);

/// A JSON list of every layout's rows as `bench engine --json` printed them.
std::string to_engine_json(std::span<const ScalingResult> results);

std::string to_table(std::span<const ScalingRow> rows);
/// [{layout, tp, pp, hosts, ranks, threads, test, tokens_per_second, speed_up, efficiency, comm_share, bubble,
/// fraction}]
std::string to_json(std::span<const ScalingRow> rows);

}  // namespace chorale::coordinator::bench
