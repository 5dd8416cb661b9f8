#include "coordinator/bench/rows.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "coordinator/bench/statistics.h"

namespace chorale::coordinator::bench {
namespace {

template <typename T>
nlohmann::ordered_json or_null(const std::optional<T>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

/// Four significant digits, no exponent for what people read in a table.
std::string show(double value) {
  if (!std::isfinite(value)) return "-";
  const double size = std::abs(value);
  return size >= 1000  ? fmt::format("{:.0f}", value)
         : size >= 100 ? fmt::format("{:.1f}", value)
         : size >= 1   ? fmt::format("{:.2f}", value)
                       : fmt::format("{:.4f}", value);
}
std::string show(const std::optional<double>& value) { return value ? show(*value) : "-"; }
std::string show(const std::optional<int>& value) { return value ? std::to_string(*value) : "-"; }

/// Whole numbers print without a fraction.
nlohmann::ordered_json number(double value) {
  constexpr double kExact = 1e15;
  if (value == std::floor(value) && std::abs(value) < kExact) return static_cast<int64_t>(value);
  return value;
}

/// In the order in which rows first have them.
std::vector<std::string> extra_names(std::span<const Row> rows) {
  std::vector<std::string> names;
  for (const Row& row : rows)
    for (const auto& [name, value] : row.extra)
      if (std::ranges::find(names, name) == names.end()) names.push_back(name);
  return names;
}

using Table = std::vector<std::vector<std::string>>;  // [row][column], the header first

Table cells_of(std::span<const Row> rows) {
  Table table{{"test", "n", "mean", "p50", "p99", "unit", "threads", "tp", "pp", "class", "read GB/s", "peak Gop/s",
               "by", "of limit"}};
  const std::vector<std::string> extras = extra_names(rows);
  table[0].insert(table[0].end(), extras.begin(), extras.end());
  for (const Row& row : rows) {
    std::vector<std::string> cells{row.test,
                                   std::to_string(row.n),
                                   show(row.mean),
                                   show(row.p50),
                                   show(row.p99),
                                   row.unit,
                                   show(row.threads),
                                   show(row.tp),
                                   show(row.pp),
                                   row.numerics_class.empty() ? "-" : row.numerics_class,
                                   show(row.read_gbps),
                                   show(row.peak_gops),
                                   row.peak_by.empty() ? "-" : row.peak_by,
                                   row.fraction ? fmt::format("{:.1f} %", 100 * *row.fraction) : "-"};
    for (const std::string& name : extras) {
      const auto found = std::ranges::find(row.extra, name, &std::pair<std::string, double>::first);
      cells.push_back(found == row.extra.end()                    ? "-"
                      : number(found->second).is_number_integer() ? number(found->second).dump()
                                                                  : show(found->second));
    }
    table.push_back(std::move(cells));
  }
  return table;
}

}  // namespace

Row make_row(std::string test, std::string unit, std::span<const double> samples) {
  Row row;
  row.test = std::move(test);
  row.unit = std::move(unit);
  row.n = static_cast<int>(samples.size());
  row.mean = mean(samples);
  row.p50 = percentile(samples, 50);
  row.p99 = percentile(samples, 99);
  return row;
}

std::string to_json(std::span<const Row> rows) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Row& row : rows) {
    nlohmann::ordered_json item{{"test", row.test},
                                {"n", row.n},
                                {"mean", row.mean},
                                {"p50", row.p50},
                                {"p99", row.p99},
                                {"unit", row.unit},
                                {"threads", or_null(row.threads)},
                                {"tp", or_null(row.tp)},
                                {"pp", or_null(row.pp)},
                                {"class", row.numerics_class.empty() ? nlohmann::ordered_json(nullptr)
                                                                     : nlohmann::ordered_json(row.numerics_class)},
                                {"read_gbps", or_null(row.read_gbps)},
                                {"peak_gops", or_null(row.peak_gops)},
                                {"fraction", or_null(row.fraction)}};
    if (!row.peak_by.empty()) item["peak_by"] = row.peak_by;
    for (const auto& [name, value] : row.extra) item[name] = number(value);
    list.push_back(std::move(item));
  }
  return list.dump();
}

std::string to_table(std::span<const Row> rows) {
  if (rows.empty()) return "";
  const Table table = cells_of(rows);
  std::string text;
  for (const auto& cells : table) {
    for (size_t column = 0; column < cells.size(); ++column) {
      size_t width = 0;
      bool is_filled = false;
      for (size_t row = 0; row < table.size(); ++row) {
        width = std::max(width, table[row][column].size());
        is_filled |= row > 0 && table[row][column] != "-";
      }
      if (!is_filled) continue;
      text += column == 0 ? fmt::format("{:<{}}", cells[column], width) : fmt::format("  {:>{}}", cells[column], width);
    }
    text += "\n";
  }
  return text;
}

std::string show_bytes(uint64_t bytes) {
  if (bytes >= uint64_t{1} << 20 && bytes % (uint64_t{1} << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
  if (bytes >= 1024 && bytes % 1024 == 0) return fmt::format("{} KiB", bytes >> 10);
  return fmt::format("{} B", bytes);
}

}  // namespace chorale::coordinator::bench
