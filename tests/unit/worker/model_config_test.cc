// Reading configurations: both spellings of config.json, GGUF metadata, defaults as Hugging Face has them, and hostile
// files, each of which must be refused with the key's name.

#include <filesystem>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "parallel/architecture.h"
#include "tests/support/shared_data.h"
#include "tests/support/temporary_folder.h"
#include "worker/layers/rope_frequencies.h"

namespace chorale::worker {
namespace {
namespace fs = std::filesystem;
using parallel::Checkpoint;
using parallel::ModelConfig;
using parallel::RopeScaling;

/// A model folder without weights, made from JSON texts and removed at the end.
class Folder {
 public:
  explicit Folder(const std::string& config, const std::string& generation = "") {
    folder_.write("config.json", config);
    if (!generation.empty()) folder_.write("generation_config.json", generation);
    folder_.write("model.safetensors", std::string("\x02\0\0\0\0\0\0\0{}", 10));
  }
  ModelConfig load() const { return parallel::load_model_config(Checkpoint::open(folder_.path())); }

 private:
  const chorale::test::TemporaryFolder folder_;
};

nlohmann::json llama() {
  return {{"model_type", "llama"},          {"vocab_size", 256},      {"hidden_size", 64},
          {"intermediate_size", 176},       {"num_hidden_layers", 3}, {"num_attention_heads", 4},
          {"max_position_embeddings", 512}, {"rms_norm_eps", 1e-6}};
}

nlohmann::json with(nlohmann::json json, const std::string& key, nlohmann::json value) {
  json[key] = std::move(value);
  return json;
}

nlohmann::json model(const std::string& type) { return with(llama(), "model_type", type); }

nlohmann::json gpt2() {
  return {{"model_type", "gpt2"}, {"vocab_size", 256}, {"n_embd", 80},
          {"n_layer", 2},         {"n_head", 5},       {"n_positions", 256}};
}

ModelConfig load(const nlohmann::json& json, const std::string& generation = "") {
  return Folder(json.dump(), generation).load();
}

TEST(ModelConfig, TakesHuggingFaceDefaultsForAbsentKeys) {
  const ModelConfig config = load(llama());
  EXPECT_EQ(config.num_kv_heads, 4);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rope.theta, 10000.0);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_EQ(config.eos_ids, std::vector<int32_t>{2});
  EXPECT_EQ(config.sliding_window, 0);
  EXPECT_EQ(load(with(model("mistral"), "num_key_value_heads", nullptr)).sliding_window, 4096);
  EXPECT_EQ(load(with(with(model("mistral"), "num_key_value_heads", 2), "sliding_window", nullptr)).sliding_window, 0);
  EXPECT_EQ(load(with(model("qwen3"), "num_key_value_heads", 4)).head_dim, 128);
}

TEST(ModelConfig, ReadsBothSpellingsOfRope) {
  const auto old_config = load(with(with(llama(), "rope_theta", 500000.0), "rope_scaling",
                                    {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}}));
  const auto new_config = load(with(
      llama(), "rope_parameters",
      {{"rope_type", "yarn"}, {"factor", 4.0}, {"rope_theta", 500000.0}, {"original_max_position_embeddings", 128}}));
  EXPECT_EQ(old_config, new_config);
  EXPECT_EQ(old_config.rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(old_config.rope.original_max_positions, 128);
}

TEST(ModelConfig, DerivesYarnsAttentionFactor) {
  const nlohmann::json yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
  const auto factor = [&](const nlohmann::json& scaling) {
    return rope_frequencies(load(with(llama(), "rope_scaling", scaling)).rope).attention_factor;
  };
  EXPECT_NEAR(factor(yarn), 0.1 * std::log(4.0) + 1.0, 1e-14);
  EXPECT_EQ(factor(with(yarn, "attention_factor", 0.5)), 0.5);
  EXPECT_NEAR(factor(with(with(yarn, "mscale", 2.0), "mscale_all_dim", 0.5)),
              (0.2 * std::log(4.0) + 1.0) / (0.05 * std::log(4.0) + 1.0), 1e-14);
  // Without a factor it is the ratio of the two lengths: 512 / 128.
  EXPECT_EQ(
      load(with(llama(), "rope_scaling", {{"type", "yarn"}, {"original_max_position_embeddings", 128}})).rope.factor,
      4.0);
}

TEST(ModelConfig, PrefersGenerationConfigsEosAndDropsIdsOutsideTheVocabulary) {
  EXPECT_EQ(load(llama(), R"({"eos_token_id": [7, 5, 300, 5]})").eos_ids, (std::vector<int32_t>{5, 7}));
  EXPECT_EQ(load(llama(), R"({"eos_token_id": null})").eos_ids, std::vector<int32_t>{2});
  const ModelConfig config = load(with(with(llama(), "bos_token_id", 50256), "eos_token_id", {256, 255}));
  EXPECT_FALSE(config.bos_id);
  EXPECT_EQ(config.eos_ids, std::vector<int32_t>{255});
}

TEST(ModelConfig, AcceptsSlidingWindowsThatAllLayersShare) {
  const auto qwen = with(with(model("qwen2"), "num_key_value_heads", 2), "sliding_window", 64);
  EXPECT_EQ(load(with(qwen, "use_sliding_window", false)).sliding_window, 0);
  EXPECT_EQ(load(with(with(qwen, "use_sliding_window", true), "max_window_layers", 0)).sliding_window, 64);
  EXPECT_EQ(load(with(with(qwen, "use_sliding_window", true), "max_window_layers", 3)).sliding_window, 0);
}

struct Hostile {
  const char* name;
  nlohmann::json config;
  const char* expected;  // stands in the message
};

std::vector<Hostile> hostile_configs() {
  const auto rope = [](nlohmann::json scaling) { return with(llama(), "rope_scaling", std::move(scaling)); };
  const auto qwen = with(model("qwen2"), "num_key_value_heads", 2);
  const auto without = [](nlohmann::json json, const char* key) {
    json.erase(key);
    return json;
  };
  return {
      {"no type", without(llama(), "model_type"), "model_type"},
      {"type is a number", with(llama(), "model_type", 7), "model_type"},
      {"unknown type", model("mamba"), "mamba"},
      {"no vocabulary", without(llama(), "vocab_size"), "vocab_size"},
      {"vocabulary is text", with(llama(), "vocab_size", "256"), "vocab_size"},
      {"vocabulary of 0", with(llama(), "vocab_size", 0), "vocab_size"},
      {"vocabulary beyond 64 bits", with(llama(), "vocab_size", 18446744073709551615ull), "vocab_size"},
      {"hidden size is a fraction", with(llama(), "hidden_size", 64.5), "hidden_size"},
      {"hidden size is huge", with(llama(), "hidden_size", int64_t{1} << 40), "hidden_size"},
      {"hidden size does not divide", with(llama(), "hidden_size", 65), "head_dim"},
      {"negative MLP", with(llama(), "intermediate_size", -1), "intermediate_size"},
      {"no layers", with(llama(), "num_hidden_layers", 0), "num_hidden_layers"},
      {"a million layers", with(llama(), "num_hidden_layers", 1000000), "num_hidden_layers"},
      {"heads are a list", with(llama(), "num_attention_heads", {4}), "num_attention_heads"},
      {"KV heads do not divide", with(llama(), "num_key_value_heads", 3), "key/value heads"},
      {"more KV heads than heads", with(llama(), "num_key_value_heads", 8), "key/value heads"},
      {"head size of 0", with(llama(), "head_dim", 0), "head_dim"},
      {"head size beyond the kernels", with(llama(), "head_dim", 512), "head_dim"},
      {"odd head size", with(llama(), "head_dim", 15), "head_dim"},
      {"positions are negative", with(llama(), "max_position_embeddings", -5), "max_position_embeddings"},
      {"eps is text", with(llama(), "rms_norm_eps", "small"), "rms_norm_eps"},
      {"eps of 0", with(llama(), "rms_norm_eps", 0.0), "rms_norm_eps"},
      {"other activation", with(llama(), "hidden_act", "gelu"), "hidden_act"},
      {"activation is a number", with(llama(), "hidden_act", 3), "hidden_act"},
      {"tie is text", with(llama(), "tie_word_embeddings", "yes"), "tie_word_embeddings"},
      {"bias is a number", with(llama(), "attention_bias", 1), "attention_bias"},
      {"theta of 1", with(llama(), "rope_theta", 1.0), "rope_theta"},
      {"theta is text", with(llama(), "rope_theta", "10000"), "rope_theta"},
      {"scaling is a list", rope(nlohmann::json::array({1})), "rope_scaling"},
      {"dynamic scaling", rope({{"rope_type", "dynamic"}, {"factor", 2.0}}), "dynamic"},
      {"longrope", rope({{"type", "longrope"}, {"factor", 2.0}}), "longrope"},
      {"linear without factor", rope({{"type", "linear"}}), "factor"},
      {"linear with factor 0", rope({{"type", "linear"}, {"factor", 0}}), "factor"},
      {"llama3 without bounds", rope({{"rope_type", "llama3"}, {"factor", 8.0}}), "low_freq_factor"},
      {"llama3 with equal bounds",
       rope({{"rope_type", "llama3"}, {"factor", 8.0}, {"low_freq_factor", 4.0}, {"high_freq_factor", 4.0}}),
       "high_freq_factor"},
      {"rope by layer type", with(llama(), "rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}),
       "full_attention"},
      {"partial rotation", with(llama(), "partial_rotary_factor", 0.5), "partial_rotary_factor"},
      {"quantised folder", with(llama(), "quantization_config", {{"quant_method", "gptq"}}), "quantization_config"},
      {"eos is text", with(llama(), "eos_token_id", "</s>"), "eos_token_id"},
      {"eos list holds text", with(llama(), "eos_token_id", {1, "x"}), "eos_token_id"},
      {"window mixture", with(with(qwen, "use_sliding_window", true), "max_window_layers", 1), "use_sliding_window"},
      {"layer types mixture",
       with(with(qwen, "use_sliding_window", true), "layer_types",
            {"full_attention", "sliding_attention", "full_attention"}),
       "layer_types"},
      {"layer types of another length", with(qwen, "layer_types", {"full_attention"}), "layer_types"},
      {"unknown layer type", with(qwen, "layer_types", {"full_attention", "linear_attention", "full_attention"}),
       "layer_types"},
      {"window of 0", with(with(model("mistral"), "num_key_value_heads", 2), "sliding_window", 0), "sliding_window"},
      {"gpt2 without sizes", without(gpt2(), "n_embd"), "n_embd"},
      {"gpt2 heads do not divide", with(gpt2(), "n_head", 3), "n_head"},
      {"gpt2 layer scaling", with(gpt2(), "scale_attn_by_inverse_layer_idx", true), "scale_attn_by_inverse_layer_idx"},
      {"gpt2 unscaled", with(gpt2(), "scale_attn_weights", false), "scale_attn_weights"},
      {"gpt2 cross-attention", with(gpt2(), "add_cross_attention", true), "add_cross_attention"},
      {"gpt2 activation", with(gpt2(), "activation_function", "mish"), "activation_function"},
  };
}

TEST(ModelConfig, RefusesHostileFilesByKey) {
  EXPECT_GE(hostile_configs().size(), 25u);
  for (const Hostile& hostile : hostile_configs()) {
    try {
      load(hostile.config);
      ADD_FAILURE() << hostile.name << ": was accepted";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(hostile.expected), std::string::npos)
          << hostile.name << ": \"" << error.what() << "\" does not name " << hostile.expected;
    }
  }
  EXPECT_THROW(load(llama(), R"({"eos_token_id": "x"})"), Error);
}

TEST(RopeFrequencies, AgreeWithLibmToRounding) {
  for (double x : {1.0 / 3, 1.0, 2.0, 10000.0, 500000.0, 1e15})
    for (double y : {0.0, 0.015625, 0.5, 0.984375, 1.0}) {
      EXPECT_NEAR(pow_f64(x, y) / std::pow(x, y), 1.0, 1e-14) << x << "^" << y;
      EXPECT_NEAR(log_f64(x), std::log(x), 1e-14 * std::max(1.0, std::abs(std::log(x))));
    }
}

TEST(ModelWeights, EveryGoldenHasEveryTensor) {
  SHARED_OR_SKIP(goldens, "goldens");
  std::vector<fs::path> models{goldens / "../models/stories260K", goldens / "../models/capp-gpt"};
  for (const auto& entry : fs::directory_iterator(goldens / "models")) models.push_back(entry.path());
  for (const auto& entry : fs::directory_iterator(goldens / "gguf"))
    if (entry.path().extension() == ".gguf") models.push_back(entry.path());
  EXPECT_GE(models.size(), 20u);
  for (const fs::path& path : models) {
    const Checkpoint checkpoint = Checkpoint::open(path);
    EXPECT_NO_THROW(parallel::check_weights(checkpoint, parallel::load_model_config(checkpoint))) << path;
  }
}

}  // namespace
}  // namespace chorale::worker
