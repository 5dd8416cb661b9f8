// Every golden model, float32, against what Hugging Face answers: greedy tokens equal, logits within the error that
// float32 sums of their lengths can make.
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "parallel/checkpoint/safetensors.h"
#include "tests/support/shared_data.h"
#include "tests/unit/worker/thread_world.h"
#include "worker/layers/rope_frequencies.h"

namespace chorale::worker::test {
namespace {
namespace fs = std::filesystem;

/// Relative error bound of a logit: gamma_n = n u over all reductions on the path through the model, u = 2^-24.
double tolerance(const parallel::ModelConfig& config, double largest) {
  const double q = double{1} * config.num_heads * config.head_dim;
  const double per_layer = 2.0 * config.hidden_size + q + config.head_dim + config.intermediate_size + 256;
  return (config.num_layers * per_layer + 2.0 * config.hidden_size) * std::ldexp(1.0, -24) * largest;
}

std::vector<float> rows_of(const parallel::SafetensorsFile& file, const std::string& name) {
  const auto* entry = file.find(name);
  if (entry == nullptr) return {};
  std::vector<float> values(entry->bytes.size() / sizeof(float));
  std::memcpy(values.data(), entry->bytes.data(), entry->bytes.size());
  return values;
}

void expect_close(std::span<const float> got, std::span<const float> wanted, const parallel::ModelConfig& config,
                  const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  double largest = 0, worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    largest = std::max(largest, std::abs(double{wanted[i]}));
    if (const double error = std::abs(double{got[i]} - wanted[i]); !(error <= worst)) worst = error, at = i;
  }
  EXPECT_LE(worst, tolerance(config, largest))
      << what << ": worst at " << at << ": " << got[at] << " instead of " << wanted[at];
}

nlohmann::json read_json(const fs::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// The reference of a folder stored in 16 bits had its rotary frequencies rounded to that type as well (the whole model
/// was cast and cast back). A checkpoint has no such numbers, so they are not rounded here; to compare logits, the same
/// is done to the configuration.
void round_frequencies(parallel::ModelConfig& config) {
  if (config.stored_dtype == DType::kF32 || config.position != parallel::PositionKind::kRope) return;
  parallel::RopeConfig plain = config.rope;
  plain.scaling = parallel::RopeScaling::kNone;
  const std::vector<double> wanted = rope_frequencies(config.rope).inv_freq, base = rope_frequencies(plain).inv_freq;
  config.rope = plain;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const auto exact = static_cast<float>(wanted[i]);
    const float rounded = config.stored_dtype == DType::kBF16 ? to_float(to_bf16(exact))
                                                              : static_cast<float>(static_cast<_Float16>(exact));
    config.rope.freq_factors.push_back(base[i] / rounded);
  }
}

enum class Frequencies { kExact, kAsReference };

void check_model(const fs::path& model, const fs::path& json_path, const fs::path& tensors_path,
                 Frequencies frequencies = Frequencies::kExact) {
  SCOPED_TRACE(model.string());
  const nlohmann::json golden = read_json(json_path);
  const auto tensors = parallel::SafetensorsFile::open(tensors_path);
  std::vector<Job> jobs;
  for (const auto& item : golden["cases"])
    jobs.push_back({.prompt = item["prompt"],
                    .num_tokens = static_cast<int>(item["greedy"].size()),
                    .prompt_logprobs = parallel::PromptLogprobs::kYes});
  ThreadWorld world(model, {});
  if (frequencies == Frequencies::kAsReference) {
    const std::vector<Answer> exact = world.run(jobs);
    for (size_t i = 0; i < jobs.size(); ++i)
      EXPECT_EQ(exact[i].tokens, golden["cases"][i]["greedy"].get<std::vector<int32_t>>()) << "case " << i;
    round_frequencies(world.config());
  }
  const std::vector<Answer> answers = world.run(jobs);
  const auto vocab = static_cast<size_t>(world.plan().config.vocab_size);
  for (size_t i = 0; i < jobs.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, golden["cases"][i]["greedy"].get<std::vector<int32_t>>()) << "case " << i;
    const auto prompt_len = static_cast<int32_t>(jobs[i].prompt.size());
    const auto compare = [&](const std::string& name, int32_t first_position) {
      const std::vector<float> wanted = rows_of(tensors, name);
      for (size_t row = 0; row < wanted.size() / vocab; ++row)
        expect_close(answers[i].logits_at.at(first_position + static_cast<int32_t>(row)),
                     std::span(wanted).subspan(row * vocab, vocab), world.plan().config,
                     name + " row " + std::to_string(row));
    };
    compare("case" + std::to_string(i) + ".step_logits", prompt_len);
    compare("case" + std::to_string(i) + ".prompt_logits", 1);
  }
}

TEST(Golden, HuggingFaceFoldersGiveTheReferencesTokensAndLogits) {
  SHARED_OR_SKIP(models, "goldens/models");
  int count = 0;
  for (const auto& entry : fs::directory_iterator(models)) {
    check_model(entry.path(), entry.path() / "golden.json", entry.path() / "golden.safetensors",
                Frequencies::kAsReference);
    ++count;
  }
  EXPECT_GE(count, 8);
}

TEST(Golden, GgufFilesOfEveryTypeGiveTheReferencesTokensAndLogits) {
  SHARED_OR_SKIP(files, "goldens/gguf");
  int count = 0;
  for (const auto& entry : fs::directory_iterator(files)) {
    if (entry.path().extension() != ".gguf") continue;
    const std::string stem = (files / entry.path().stem()).string();
    check_model(entry.path(), stem + ".golden.json", stem + ".golden.safetensors");
    ++count;
  }
  EXPECT_GE(count, 13);
}

TEST(Golden, SmallTrainedModelsGiveTheReferencesTokens) {
  SHARED_OR_SKIP(models, "models");
  for (const char* name : {"stories260K", "capp-gpt"}) {
    const nlohmann::json golden = read_json(models / name / "golden.json");
    const std::vector<int32_t> prompt = golden["prompt_ids"];
    std::vector<int32_t> wanted = golden["greedy_ids"];
    if (std::string_view(name) == "stories260K") wanted.erase(wanted.begin());  // begins with the prompt
    ThreadWorld world(models / name, {});
    const auto answers = world.run({{.prompt = prompt, .num_tokens = static_cast<int>(wanted.size())}});
    EXPECT_EQ(answers[0].tokens, wanted) << name;
    const char* key = golden.contains("first_logits") ? "first_logits" : "first_step_logits";
    const std::vector<float> logits = golden[key];
    expect_close(answers[0].logits_at.at(static_cast<int32_t>(prompt.size())), logits, world.plan().config, name);
  }
}

}  // namespace
}  // namespace chorale::worker::test
