#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/commands/commands.h"
#include "tests/support/shared_data.h"

namespace chorale::coordinator {
namespace {

// Runs the command and returns what it printed; `code` gets the exit code.
std::string inspect(std::vector<std::string> arguments, int& code) {
  arguments.insert(arguments.begin(), "inspect");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  testing::internal::CaptureStdout();
  try {
    code = run_inspect(static_cast<int>(arguments.size()), argv.data());
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  std::fflush(stdout);
  return testing::internal::GetCapturedStdout();
}

TEST(Inspect, PrintsAGgufFileAsJson) {
  SHARED_OR_SKIP(path, "goldens/gguf/llama-q4_k.gguf");
  int code = -1;
  const auto json = nlohmann::json::parse(inspect({"--model", path.string(), "--json"}, code));
  EXPECT_EQ(code, kExitOk);
  EXPECT_EQ(json["format"], "gguf");
  EXPECT_EQ(json["path"], path.string());
  EXPECT_EQ(json["file_bytes"], std::filesystem::file_size(path));
  EXPECT_EQ(json["num_tensors"], json["tensors"].size());
  EXPECT_EQ(json["metadata"]["general.architecture"], "llama");
  size_t count = 0;
  for (const auto& dtype : json["dtypes"]) count += dtype["count"].get<size_t>();
  EXPECT_EQ(count, json["num_tensors"]);
  ASSERT_TRUE(json["dtypes"].contains("Q4_K"));
  const auto& tensor = json["tensors"][0];
  EXPECT_TRUE(tensor["name"].is_string() && tensor["dtype"].is_string() && tensor["shape"].is_array() &&
              tensor["bytes"].is_number());
}

TEST(Inspect, PrintsAFolderAsJsonAndAsText) {
  SHARED_OR_SKIP(path, "models/stories260K");
  int code = -1;
  const auto json = nlohmann::json::parse(inspect({"--json", "--model", path.string()}, code));
  EXPECT_EQ(json["format"], "safetensors");
  EXPECT_EQ(json["config"]["model_type"], "llama");
  const std::string text = inspect({"--model", path.string(), "--tensors"}, code);
  EXPECT_EQ(code, kExitOk);
  EXPECT_NE(text.find("Hugging Face folder"), std::string::npos);
  EXPECT_NE(text.find("model.embed_tokens.weight"), std::string::npos);
  EXPECT_EQ(inspect({"--model", path.string()}, code).find("model.embed_tokens.weight"), std::string::npos);
}

TEST(Inspect, ShortensLongLists) {
  SHARED_OR_SKIP(path, "tokenizers/llamacpp-golden/ggml-vocab-qwen2.gguf");
  int code = -1;
  const std::string text = inspect({"--model", path.string()}, code);
  EXPECT_NE(text.find("tokenizer.ggml.tokens = 15"), std::string::npos);
  EXPECT_LT(text.size(), 10000u);
  const auto json = nlohmann::json::parse(inspect({"--model", path.string(), "--json"}, code));
  EXPECT_GT(json["metadata"]["tokenizer.ggml.tokens"]["length"], 150000);
  EXPECT_EQ(json["num_tensors"], 0);
}

TEST(Inspect, HelpsAndRefuses) {
  int code = -1;
  EXPECT_NE(inspect({"--help"}, code).find("examples:"), std::string::npos);
  EXPECT_EQ(code, kExitOk);
  EXPECT_THROW(inspect({}, code), Error);
  EXPECT_THROW(inspect({"--model", "/no/such/model"}, code), Error);
  EXPECT_THROW(inspect({"model"}, code), Error);
  EXPECT_THROW(inspect({"--modle", "x"}, code), cxxopts::exceptions::exception);
}

}  // namespace
}  // namespace chorale::coordinator
