#include "coordinator/bench/scaling.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator::bench {
namespace {

constexpr int kMostRanks = 4096;

std::optional<int> parse_count(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > kMostRanks) return std::nullopt;
  return value;
}

ScalingPoint parse_layout(std::string_view text) {
  const size_t cross = text.find('x');
  if (cross != std::string_view::npos) {
    const auto tp = parse_count(text.substr(0, cross));
    const auto pp = parse_count(text.substr(cross + 1));
    if (tp && pp && *tp * *pp <= kMostRanks) return {.tp = *tp, .pp = *pp};
  }
  fail(ErrorCode::kInvalidArgument, "--layouts: '{}' is not a layout; expected TPxPP as in 2x1", text);
}

ScalingResult parse_row(const ScalingPoint& point, const nlohmann::ordered_json& row) {
  ScalingResult result;
  result.point = point;
  result.test = row.at("test").get<std::string>();
  result.threads = row.at("threads").get<int>();
  result.tokens_per_second = row.at("p50").get<double>();
  result.comm_share = row.at("comm_share").get<double>();
  result.bubble = row.at("bubble").get<double>();
  result.row = row.dump();
  if (!row.at("fraction").is_null()) result.fraction = row.at("fraction").get<double>();
  return result;
}

std::string percent(double share) { return fmt::format("{:.1f} %", 100 * share); }

}  // namespace

std::string ScalingPoint::name() const {
  return num_hosts == 1 ? fmt::format("{}x{}", tp, pp) : fmt::format("{}x{} on {} hosts", tp, pp, num_hosts);
}

std::vector<ScalingPoint> parse_layouts(std::string_view layouts, const std::vector<int>& host_counts) {
  std::vector<ScalingPoint> points;
  for (const int num_hosts : host_counts) {
    if (num_hosts < 1) fail(ErrorCode::kInvalidArgument, "--hosts {}: expected at least 1", num_hosts);
    for (std::string_view rest = layouts;;) {
      const size_t comma = rest.find(',');
      ScalingPoint point = parse_layout(rest.substr(0, comma));
      point.num_hosts = num_hosts;
      if (point.num_ranks() >= num_hosts && std::ranges::find(points, point) == points.end()) points.push_back(point);
      if (comma == std::string_view::npos) break;
      rest.remove_prefix(comma + 1);
    }
  }
  if (points.empty())
    fail(ErrorCode::kInvalidArgument, "--layouts {}: every layout has fewer ranks than --hosts", layouts);
  return points;
}

std::vector<ScalingResult> parse_engine_output(const ScalingPoint& point, std::string_view output) {
  const size_t begin = output.rfind("[{\"test\":");
  const size_t end = begin == std::string_view::npos ? begin : output.find('\n', begin);
  if (begin == std::string_view::npos)
    fail(ErrorCode::kCorrupt, "layout {}: bench engine printed no results", point.name());
  const std::string_view line = output.substr(begin, end == std::string_view::npos ? end : end - begin);
  try {
    std::vector<ScalingResult> results;
    for (const auto& row : nlohmann::ordered_json::parse(line))
      if (row.value("unit", "tok/s") == "tok/s") results.push_back(parse_row(point, row));
    return results;
  } catch (const nlohmann::json::exception& error) {
    fail(ErrorCode::kCorrupt, "layout {}: bench engine printed something else than results: {}", point.name(),
         error.what());
  }
}

std::vector<ScalingRow> compare(std::span<const ScalingResult> results) {
  std::vector<ScalingRow> rows;
  for (const ScalingResult& result : results) {
    const ScalingResult& first = *std::ranges::find(results, result.test, &ScalingResult::test);
    ScalingRow row{.result = result};
    row.speed_up = result.tokens_per_second / first.tokens_per_second;
    row.resources =
        static_cast<double>(result.point.num_ranks() * result.threads) / (first.point.num_ranks() * first.threads);
    row.efficiency = row.speed_up / row.resources;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string to_engine_json(std::span<const ScalingResult> results) {
  std::string list = "[";
  for (const ScalingResult& result : results) list += (list.size() > 1 ? ", " : "") + result.row;
  return list + "]\n";
}

std::string to_table(std::span<const ScalingRow> rows) {
  std::string text =
      fmt::format("{:<16} {:>5} {:>7}  {:<10} {:>10} {:>9} {:>10} {:>8} {:>8} {:>9}\n", "tp x pp", "ranks", "threads",
                  "test", "tok/s", "speed-up", "efficiency", "comm", "bubble", "of limit");
  for (const ScalingRow& row : rows) {
    const ScalingResult& result = row.result;
    text += fmt::format("{:<16} {:>5} {:>7}  {:<10} {:>10.2f} {:>9.2f} {:>10} {:>8} {:>8} {:>9}\n", result.point.name(),
                        result.point.num_ranks(), result.threads, result.test, result.tokens_per_second, row.speed_up,
                        percent(row.efficiency), percent(result.comm_share), percent(result.bubble),
                        result.fraction ? percent(*result.fraction) : "-");
  }
  return text;
}

std::string to_json(std::span<const ScalingRow> rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ScalingRow& row : rows) {
    const ScalingResult& result = row.result;
    list.push_back(
        {{"layout", fmt::format("{}x{}", result.point.tp, result.point.pp)},
         {"tp", result.point.tp},
         {"pp", result.point.pp},
         {"hosts", result.point.num_hosts},
         {"ranks", result.point.num_ranks()},
         {"threads", result.threads},
         {"test", result.test},
         {"tokens_per_second", result.tokens_per_second},
         {"speed_up", row.speed_up},
         {"efficiency", row.efficiency},
         {"comm_share", result.comm_share},
         {"bubble", result.bubble},
         {"fraction", result.fraction ? nlohmann::ordered_json(*result.fraction) : nlohmann::ordered_json(nullptr)}});
  }
  return list.dump(2) + "\n";
}

}  // namespace chorale::coordinator::bench
