#include "coordinator/bench/scaling.h"

#include <stack>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/bench/scaling_plot.h"
#include "coordinator/bench/svg.h"

namespace chorale::coordinator::bench {
namespace {

/// Enough of an XML parser for what Svg writes: tags nest, attributes are quoted, '&' and '<' stand for nothing else.
/// Empty: it is fine.
std::string what_is_wrong(const std::string& xml) {
  std::stack<std::string> open;
  for (size_t at = 0; at < xml.size();) {
    if (xml[at] == '&') {
      const size_t end = xml.find(';', at);
      if (end == std::string::npos || end - at > 6) return "a bare &";
      at = end + 1;
    } else if (xml[at] == '<') {
      const size_t end = xml.find('>', at);
      if (end == std::string::npos) return "an open tag";
      const std::string tag = xml.substr(at + 1, end - at - 1);
      if (tag.find('<') != std::string::npos) return "< inside a tag";
      if (std::count(tag.begin(), tag.end(), '"') % 2 != 0) return "an open quote in " + tag;
      const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
      if (tag.front() == '/') {
        if (open.empty() || "/" + open.top() != tag) return "unexpected " + tag;
        open.pop();
      } else if (tag.back() != '/') {
        open.push(name);
      }
      at = end + 1;
    } else if (static_cast<unsigned char>(xml[at]) < ' ' && xml[at] != '\n') {
      return "a control character";
    } else {
      ++at;
    }
  }
  return open.empty() ? "" : "never closed: " + open.top();
}

ScalingResult result(int tp, int pp, const std::string& test, double rate) {
  ScalingResult r;
  r.point = {.tp = tp, .pp = pp};
  r.test = test;
  r.tokens_per_second = rate;
  r.comm_share = 0.1;
  r.bubble = 0.2;
  return r;
}

TEST(ParseLayouts, TakesEveryLayoutOnEveryNumberOfHosts) {
  const auto points = parse_layouts("1x1,2x1,2x3", {1, 2});
  ASSERT_EQ(points.size(), 5u);  // 1x1 does not spread over 2 hosts
  EXPECT_EQ(points[2], (ScalingPoint{.tp = 2, .pp = 3, .num_hosts = 1}));
  EXPECT_EQ(points[3], (ScalingPoint{.tp = 2, .pp = 1, .num_hosts = 2}));
  EXPECT_EQ(points[3].name(), "2x1 on 2 hosts");
}

TEST(ParseLayouts, NamesThePartThatIsWrong) {
  for (const char* bad :
       {"", "2", "x", "2x", "x2", "0x1", "2x-1", "2x1,", "2x1,abc", "2 x1", "99999x1", "4096x4096", "1x1x1"}) {
    try {
      parse_layouts(bad, {1});
      ADD_FAILURE() << "'" << bad << "' was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << bad;
      EXPECT_NE(std::string(error.what()).find("--layouts"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(parse_layouts("1x1", {0}), Error);
  EXPECT_THROW(parse_layouts("1x1", {2}), Error);
}

TEST(ParseEngineOutput, LeavesOutRowsThatAreNoRates) {
  const auto results = parse_engine_output(
      {.tp = 1, .pp = 1},
      R"([{"test":"tg8 gap","unit":"us","p50":3.5},{"test":"tg8","unit":"tok/s","threads":1,"p50":7.5,)"
      R"("fraction":null,"comm_share":0,"bubble":0}])");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].tokens_per_second, 7.5);
}

TEST(ParseEngineOutput, FindsTheRowsBetweenWarnings) {
  const auto results = parse_engine_output({.tp = 2},
                                           "warn: "
                                           "something\n[{\"test\":\"pp8\",\"n\":2,\"mean\":9.0,\"p50\":10.5,"
                                           "\"threads\":1,\"fraction\":null,\"comm_share\":0.25,"
                                           "\"bubble\":0}]\ntrailing\n");
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].test, "pp8");
  EXPECT_EQ(results[0].tokens_per_second, 10.5);
  EXPECT_EQ(results[0].comm_share, 0.25);
  EXPECT_FALSE(results[0].fraction);
}

TEST(ParseEngineOutput, SaysWhenThereAreNone) {
  for (const char* bad :
       {"", "error: no such model\n", "[{\"test\":", "[{\"test\":\"a\"}]", "[{\"test\":1,\"threads\":2}]"})
    EXPECT_THROW(parse_engine_output({}, bad), Error) << bad;
}

TEST(Compare, DividesByTheFirstResultOfTheSameTest) {
  const std::vector<ScalingResult> results{result(1, 1, "pp", 100), result(1, 1, "tg", 10), result(2, 2, "pp", 300),
                                           result(2, 2, "tg", 15)};
  const auto rows = compare(results);
  EXPECT_EQ(rows[2].speed_up, 3);
  EXPECT_EQ(rows[2].resources, 4);
  EXPECT_EQ(rows[2].efficiency, 0.75);
  EXPECT_EQ(rows[3].speed_up, 1.5);
  const auto json = nlohmann::json::parse(to_json(rows));
  EXPECT_EQ(json.at(2).at("layout"), "2x2");
  EXPECT_EQ(json.at(2).at("efficiency"), 0.75);
  EXPECT_NE(to_table(rows).find("75.0 %"), std::string::npos);
}

TEST(Svg, EscapesTextAndStaysWellFormed) {
  Svg svg(100, 50);
  svg.text({1, 2}, "a<b> & \"c\" \x01\xff", {});
  svg.rectangle({0, 0}, 1, 1, "#fff", "<title>");
  svg.line({0, 0}, {1, 1}, "\"/><script>", 1);
  const std::string file = svg.finish();
  EXPECT_EQ(what_is_wrong(file), "") << file;
  EXPECT_EQ(file.find("<script>"), std::string::npos);
  EXPECT_NE(file.find("a&lt;b&gt; &amp; &quot;c&quot; ??"), std::string::npos) << file;
}

TEST(ScalingPlot, ShowsEveryLayoutAndTest) {
  std::vector<ScalingResult> results{result(1, 1, "pp512", 100), result(1, 1, "tg128", 10), result(2, 1, "pp512", 190),
                                     result(1, 2, "tg128", 9.5)};
  results[3].bubble = 1.5;  // an impossible report must not leave the panel
  const std::string file = plot_scaling(compare(results), "model M, 1 thread a rank");
  EXPECT_EQ(what_is_wrong(file), "") << file;
  for (const char* text : {"1x1", "2x1", "1x2", "pp512", "tg128", "1.90", "95 %", "model M"})
    EXPECT_NE(file.find(text), std::string::npos) << text;
  EXPECT_EQ(file.find("nan"), std::string::npos);
  EXPECT_EQ(file.find("height=\"-"), std::string::npos);
}

}  // namespace
}  // namespace chorale::coordinator::bench
