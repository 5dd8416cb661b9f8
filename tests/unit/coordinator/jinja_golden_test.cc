// Every case of tests/goldens/jinja_cases.json, which scripts/make_jinja_goldens.py writes by running Python's jinja2.
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "coordinator/text/chat_template.h"
#include "tests/support/shared_data.h"

namespace chorale::coordinator {
namespace {

using Json = nlohmann::ordered_json;

std::filesystem::path goldens() { return test::source_folder() / "tests" / "goldens" / "jinja_cases.json"; }

std::tm broken_down(const Json& now) {
  std::tm time{};
  time.tm_year = now[0].get<int>() - 1900;
  time.tm_mon = now[1].get<int>() - 1;
  time.tm_mday = now[2];
  time.tm_hour = now[3];
  time.tm_min = now[4];
  time.tm_sec = now[5];
  time.tm_isdst = 0;
  const std::time_t seconds = timegm(&time);
  gmtime_r(&seconds, &time);
  return time;
}

class JinjaGolden : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    std::ifstream file(goldens());
    document_ = new Json(Json::parse(file));
  }
  static void TearDownTestSuite() { delete document_; }

  /// Text, or "<compile> message" / "<render> message".
  static std::string outcome(const Json& test_case) {
    auto compiled = ChatTemplate::compile(test_case["template"]);
    if (!compiled) return "<compile> " + compiled.failure().message;
    compiled->set_clock([] { return broken_down((*document_)["now"]); });
    Json variables = {{"bos_token", "<s>"}, {"eos_token", "</s>"}};
    if (test_case.contains("variables")) variables.update(test_case["variables"]);
    const Json& messages = test_case.contains("messages") ? test_case["messages"] : (*document_)["messages"];
    const auto text = compiled->render(messages, AddGenerationPrompt::kYes, variables);
    return text ? *text : "<render> " + text.failure().message;
  }

  static Json* document_;
};
Json* JinjaGolden::document_ = nullptr;

TEST_F(JinjaGolden, RendersWhatPythonRenders) {
  int count = 0;
  for (const Json& test_case : (*document_)["cases"]) {
    if (!test_case.contains("text")) continue;
    EXPECT_EQ(outcome(test_case), test_case["text"].get<std::string>()) << test_case["template"];
    ++count;
  }
  EXPECT_GE(count, 400);
}

TEST_F(JinjaGolden, ReturnsTheMessageOfRaiseExceptionAsItIs) {
  for (const Json& test_case : (*document_)["cases"]) {
    if (!test_case.contains("raised")) continue;
    EXPECT_EQ(outcome(test_case), "<render> " + test_case["raised"].get<std::string>()) << test_case["template"];
  }
}

TEST_F(JinjaGolden, NamesWhatIsUndefined) {
  for (const Json& test_case : (*document_)["cases"]) {
    if (!test_case.contains("undefined")) continue;
    const std::string actual = outcome(test_case);
    EXPECT_TRUE(actual.starts_with("<render> ")) << test_case["template"] << " gave " << actual;
    EXPECT_NE(actual.find(test_case["undefined"].get<std::string>()), std::string::npos)
        << test_case["template"] << " gave " << actual << ", not " << test_case["undefined"];
  }
}

TEST_F(JinjaGolden, FailsWherePythonFails) {
  for (const Json& test_case : (*document_)["cases"]) {
    if (!test_case.contains("error")) continue;
    const std::string actual = outcome(test_case);
    EXPECT_TRUE(actual.starts_with("<render> chat template, line ")) << test_case << " gave " << actual;
  }
}

TEST_F(JinjaGolden, RefusesAtCompileWhatPythonRefusesAndNamesTheLine) {
  for (const Json& test_case : (*document_)["cases"]) {
    if (!test_case.contains("compile_error")) continue;
    const std::string actual = outcome(test_case);
    const int line = test_case["line"];
    const std::string expected = "<compile> chat template, line " + (line > 0 ? std::to_string(line) + ": " : "");
    EXPECT_TRUE(actual.starts_with(expected)) << test_case << " gave " << actual;
  }
}

}  // namespace
}  // namespace chorale::coordinator
