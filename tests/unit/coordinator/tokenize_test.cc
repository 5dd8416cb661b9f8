// The command `chorale tokenize` as scripts use it.
#include <fstream>
#include <iostream>
#include <sstream>

#include <gtest/gtest.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/commands/commands.h"
#include "tests/support/shared_data.h"
#include "tests/support/temporary_folder.h"

namespace chorale::coordinator {
namespace {

using nlohmann::json;

/// Runs the command on `input`; returns the lines it prints. `code` gets the exit code.
std::vector<json> tokenize(std::vector<std::string> arguments, const std::string& input, int& code) {
  arguments.insert(arguments.begin(), "tokenize");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  std::istringstream in(input);
  std::ostringstream out;
  std::streambuf* const real_in = std::cin.rdbuf(in.rdbuf());
  std::streambuf* const real_out = std::cout.rdbuf(out.rdbuf());
  std::cin.clear();
  const auto restore = [&] {
    std::cin.rdbuf(real_in);
    std::cout.rdbuf(real_out);
  };
  try {
    code = run_tokenize(static_cast<int>(arguments.size()), argv.data());
  } catch (...) {
    restore();
    throw;
  }
  restore();
  std::vector<json> lines;
  std::istringstream printed(out.str());
  for (std::string line; std::getline(printed, line);) lines.push_back(json::parse(line));
  return lines;
}

TEST(Tokenize, PrintsOneListForEachLineAndGoesOnAfterABadOne) {
  SHARED_OR_SKIP(model, "models/stories260K");
  int code = -1;
  auto lines = tokenize({"--model", model.string()}, "\"Once upon\"\n\"\"\n", code);
  EXPECT_EQ(code, kExitOk);
  EXPECT_EQ(lines, (std::vector<json>{{403, 407}, json::array()}));
  EXPECT_EQ(tokenize({"--model", model.string(), "--add-special"}, "\"Once upon\"\n", code)[0], json({1, 403, 407}));
  EXPECT_EQ(tokenize({"--model", model.string(), "--parse-special"}, "\"<s>\"\n", code)[0], json::array({1}));

  lines = tokenize({"--model", model.string()}, "\"a\"\n{\n3\n\n \t\r\n\"Once\"\n\"x", code);
  EXPECT_EQ(code, kExitFailure);
  ASSERT_EQ(lines.size(), 5u);  // lines without text are skipped, but counted
  EXPECT_EQ(lines[1], (json{{"error", "line 2: not valid JSON at byte 2"}}));
  EXPECT_EQ(lines[2], (json{{"error", "line 3: expected a JSON string, found number"}}));
  EXPECT_EQ(lines[3], json::array({403}));
  EXPECT_EQ(lines[4], (json{{"error", "line 7: not valid JSON at byte 3"}}));
}

TEST(Tokenize, RendersChatsWithTheModelsVariablesAndOthers) {
  SHARED_OR_SKIP(model, "goldens/tokenizers/smollm2.tokenizer.json");
  const test::TemporaryFolder folder;
  const std::string file = folder.write("chat.jinja",
                                        "{{ bos_token }}{{ eos_token }}:{% for m in messages %}{{ m.content }}"
                                        "{% endfor %}{% if add_generation_prompt %}>{% endif %}");
  int code = -1;
  const std::string input = R"({"messages": [{"role": "user", "content": "hé"}], "add_generation_prompt": true})"
                            "\n"
                            R"({"messages": [], "variables": {"bos_token": "B"}})"
                            "\n"
                            R"({"messages": 3})"
                            "\n";
  const auto lines = tokenize({"--model", model.string(), "--chat", "--template", file}, input, code);
  EXPECT_EQ(code, kExitFailure);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[0], "<|im_start|><|im_end|>:hé>");
  EXPECT_EQ(lines[1], "B<|im_end|>:");
  EXPECT_TRUE(lines[2].contains("error"));
}

TEST(Tokenize, RefusesAPreTokenizerItDoesNotKnowByName) {
  const test::TemporaryFolder folder;
  const std::string file = folder.write(
      "tokenizer.json",
      R"({"pre_tokenizer": {"type": "UnicodeScripts"}, "model": {"type": "BPE", "vocab": {}, "merges": []}})");
  int code = -1;
  try {
    tokenize({"--model", file}, "", code);
    ADD_FAILURE() << "was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find("'UnicodeScripts'"), std::string::npos);
  }
}

TEST(Tokenize, RefusesWrongUsage) {
  int code = -1;
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{}, {"--model", "x", "text"}, {"--model", "x", "--template", "y"}}) {
    try {
      tokenize(arguments, "", code);
      ADD_FAILURE() << "was accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    }
  }
  EXPECT_THROW(tokenize({"--modell", "x"}, "", code), cxxopts::exceptions::exception);
}

}  // namespace
}  // namespace chorale::coordinator
