#include "coordinator/bench/statistics.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "coordinator/bench/rows.h"

namespace chorale::coordinator::bench {
namespace {

TEST(Percentile, LiesBetweenTheNearestRanks) {
  const std::vector<double> values{40, 10, 30, 20, 50};
  EXPECT_EQ(percentile(values, 0), 10);
  EXPECT_EQ(percentile(values, 50), 30);
  EXPECT_EQ(percentile(values, 100), 50);
  EXPECT_DOUBLE_EQ(percentile(values, 99), 49.6);  // numpy.percentile
  EXPECT_EQ(percentile(std::vector<double>{7}, 99), 7);
}

TEST(Select, KeepsAllSamplesOfOneState) {
  const std::vector<Sample> samples{{1, 34, 35}, {2, 35, 33}, {3, 34, 34}};
  const Selection selection = select(samples);
  EXPECT_EQ(selection.kept, (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(selection.num_flipped + selection.num_other_state, 0u);
}

TEST(Select, DropsSamplesDuringWhichTheStateChanged) {
  const std::vector<Sample> samples{{1, 34, 35}, {2, 35, 58}, {3, 57, 34}, {4, 34, 34}};
  const Selection selection = select(samples);
  EXPECT_EQ(selection.kept, (std::vector<size_t>{0, 3}));
  EXPECT_EQ(selection.num_flipped, 2u);
}

TEST(Select, KeepsTheStateThatMoreSamplesSaw) {
  const std::vector<Sample> samples{{1, 58, 58}, {2, 34, 35}, {3, 60, 57}, {4, 57, 58}};
  const Selection selection = select(samples);
  EXPECT_EQ(selection.kept, (std::vector<size_t>{0, 2, 3}));
  EXPECT_EQ(selection.num_flipped, 0u);
  EXPECT_EQ(selection.num_other_state, 1u);
}

TEST(Select, KeepsEverythingWhenNothingWasStable) {
  const std::vector<Sample> samples{{1, 34, 58}, {2, 58, 34}};
  const Selection selection = select(samples);
  EXPECT_EQ(selection.kept.size(), 2u);
  EXPECT_EQ(selection.num_flipped, 2u);
}

TEST(BenchRows, PrintTheFixedKeysInOrderAndNullForWhatWasNotMeasured) {
  Row row = make_row("tg128", "tok/s", std::vector<double>{10, 20, 30});
  row.threads = 2;
  row.extra = {{"streams", 16}};
  const auto json = nlohmann::ordered_json::parse(to_json(std::vector{row}));
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.at(0).items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"test", "n", "mean", "p50", "p99", "unit", "threads", "tp", "pp", "class",
                                            "read_gbps", "peak_gops", "fraction", "streams"}));
  EXPECT_EQ(json[0]["mean"], 20);
  EXPECT_EQ(json[0]["threads"], 2);
  EXPECT_TRUE(json[0]["fraction"].is_null());
  EXPECT_TRUE(json[0]["class"].is_null());
}

TEST(BenchRows, LeaveOutColumnsThatNoRowFills) {
  const std::string table = to_table(std::vector{make_row("ttft", "ms", std::vector<double>{1.5})});
  EXPECT_EQ(table.find("GB/s"), std::string::npos);
  EXPECT_NE(table.find("1.50"), std::string::npos);
}

TEST(BenchRows, ShowSizesInWholeUnits) {
  EXPECT_EQ(show_bytes(8192), "8 KiB");
  EXPECT_EQ(show_bytes(uint64_t{4} << 20), "4 MiB");
  EXPECT_EQ(show_bytes(1000), "1000 B");
}

}  // namespace
}  // namespace chorale::coordinator::bench
