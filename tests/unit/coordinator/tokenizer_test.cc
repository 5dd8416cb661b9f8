// Tokenizers against what the Hugging Face library and llama.cpp answer for the shared corpus.
#include "coordinator/text/tokenizer.h"

#include <fstream>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/shared_data.h"

namespace chorale::coordinator {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

json read_json(const fs::path& path) {
  std::ifstream in(path);
  return json::parse(in);
}

/// The text of a whole list, token by token.
std::string stream(const std::shared_ptr<const Tokenizer>& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder decoder(tokenizer, SkipSpecial::kNo);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

struct Golden {
  std::string name;
  std::string tokenizer;  // below the shared folder
  ParseSpecial parse_special;
};

class TokenizerGolden : public testing::TestWithParam<Golden> {};

TEST_P(TokenizerGolden, GivesTheReferenceIdsAndText) {
  const Golden& golden = GetParam();
  SHARED_OR_SKIP(goldens, "goldens/tokenizers");
  SHARED_OR_SKIP(path, golden.tokenizer);
  const auto tokenizer = Tokenizer::from_path(path);
  const json corpus = read_json(goldens / "corpus.json");
  const json expected = read_json(goldens / (golden.name + ".ids.json"));
  ASSERT_EQ(corpus.size(), expected["ids"].size());
  for (size_t i = 0; i < corpus.size(); ++i) {
    const auto text = corpus[i].get<std::string>();
    const auto ids = expected["ids"][i].get<std::vector<int32_t>>();
    ASSERT_EQ(tokenizer->encode(text, AddSpecial::kNo, golden.parse_special), ids) << "text " << i << ": " << text;
    ASSERT_EQ(stream(tokenizer, ids), tokenizer->decode(ids, SkipSpecial::kNo)) << "text " << i;
    if (expected.contains("decoded")) {
      const std::string decoded = expected["decoded"][i].get<std::string>();
      ASSERT_EQ(tokenizer->decode(ids, SkipSpecial::kNo), decoded) << "text " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TokenizerGolden,
    testing::Values(Golden{"gpt2", "goldens/tokenizers/gpt2.tokenizer.json", ParseSpecial::kYes},
                    Golden{"llama3-pattern", "goldens/tokenizers/llama3-pattern.tokenizer.json", ParseSpecial::kYes},
                    Golden{"qwen2-pattern", "goldens/tokenizers/qwen2-pattern.tokenizer.json", ParseSpecial::kYes},
                    Golden{"smollm2", "goldens/tokenizers/smollm2.tokenizer.json", ParseSpecial::kYes},
                    Golden{"stories260K", "models/stories260K", ParseSpecial::kYes},
                    Golden{"gpt2-gguf", "tokenizers/llamacpp-golden/ggml-vocab-gpt-2.gguf", ParseSpecial::kNo},
                    Golden{"llama-spm-gguf", "tokenizers/llamacpp-golden/ggml-vocab-llama-spm.gguf", ParseSpecial::kNo},
                    Golden{"qwen2-gguf", "tokenizers/llamacpp-golden/ggml-vocab-qwen2.gguf", ParseSpecial::kNo}),
    [](const auto& info) {
      std::string name = info.param.name;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

/// The default model's own file, where one has been fetched: CHORALE_DEFAULT_MODEL names it.
TEST(TokenizerGguf, GivesTheReferenceIdsForTheDefaultModel) {
  const char* model = std::getenv("CHORALE_DEFAULT_MODEL");
  if (model == nullptr) GTEST_SKIP() << "CHORALE_DEFAULT_MODEL does not name the default model's GGUF file";
  SHARED_OR_SKIP(goldens, "goldens/tokenizers");
  const auto tokenizer = Tokenizer::from_path(model);
  const json corpus = read_json(goldens / "corpus.json");
  const json expected = read_json(goldens / "smollm2-gguf.ids.json");
  for (size_t i = 0; i < corpus.size(); ++i)
    EXPECT_EQ(tokenizer->encode(corpus[i].get<std::string>(), AddSpecial::kNo, ParseSpecial::kNo),
              expected["ids"][i].get<std::vector<int32_t>>());
  EXPECT_EQ(tokenizer->special().eos_ids, std::vector<int32_t>{2});
  EXPECT_EQ(tokenizer->special().strings.at("bos_token"), "<|im_start|>");
  EXPECT_TRUE(tokenizer->chat_template());
}

/// llama.cpp's own pairs of texts (.inp) and ids (.out).
TEST(TokenizerGguf, GivesTheIdsOfLlamaCppsOwnTests) {
  SHARED_OR_SKIP(folder, "tokenizers/llamacpp-golden");
  for (const char* name : {"gpt-2", "llama-spm", "qwen2"}) {
    const fs::path file = folder / fmt::format("ggml-vocab-{}.gguf", name);
    const auto tokenizer = Tokenizer::from_path(file);
    std::ifstream inputs(file.string() + ".inp");
    std::ifstream outputs(file.string() + ".out");
    std::stringstream all;
    all << inputs.rdbuf();
    const std::string separator = "\n__ggml_vocab_test__\n";
    std::string rest = all.str();
    int num_texts = 0;
    for (std::string line; std::getline(outputs, line); ++num_texts) {
      const size_t end = rest.find(separator);
      ASSERT_NE(end, std::string::npos);
      std::istringstream numbers(line);
      const std::vector<int32_t> ids{std::istream_iterator<int32_t>(numbers), {}};
      EXPECT_EQ(tokenizer->encode(rest.substr(0, end), AddSpecial::kNo, ParseSpecial::kNo), ids)
          << name << ": " << rest.substr(0, end);
      rest.erase(0, end + separator.size());
    }
    EXPECT_GT(num_texts, 40);
  }
}

}  // namespace
}  // namespace chorale::coordinator
