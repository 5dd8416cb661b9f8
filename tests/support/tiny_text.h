// A tokenizer and chat template small enough to predict: a token is a byte, <s> is 256 and </s> 257. For tests and
// fuzzers of the API.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "coordinator/api/model_text.h"
#include "coordinator/api/request.h"

namespace chorale::test {

constexpr int32_t kTinyVocab = 258;
constexpr int32_t kTinyBos = 256;
constexpr int32_t kTinyEos = 257;

class TinyText : public coordinator::api::ModelText {
 public:
  Result<std::vector<int32_t>> encode(std::string_view text, coordinator::AddSpecial add_special) const override {
    std::vector<int32_t> ids;
    if (add_special == coordinator::AddSpecial::kYes) ids.push_back(kTinyBos);
    for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
    return ids;
  }
  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) text += token_text(id);
    return text;
  }
  std::string token_text(int32_t id) const override {
    return id == kTinyBos ? "<s>" : id == kTinyEos ? "</s>" : std::string(1, static_cast<char>(id));
  }
  std::string token_bytes(int32_t id) const override { return token_text(id); }
  Result<std::string> render_chat(const coordinator::api::Json& messages,
                                  coordinator::AddGenerationPrompt add_generation_prompt,
                                  const coordinator::api::Json& variables) const override {
    std::string text = variables.contains("prefix") && variables.at("prefix").is_string() ? variables.at("prefix") : "";
    for (const auto& message : messages) {
      if (message.at("content") == "raise") return Failure{ErrorCode::kInvalidArgument, "the template raised", ""};
      text += "[" + message.at("role").get<std::string>() + "]" + message.at("content").get<std::string>();
    }
    return add_generation_prompt == coordinator::AddGenerationPrompt::kYes ? text + "[assistant]" : text;
  }
};

inline std::shared_ptr<coordinator::api::ApiContext> tiny_context() {
  auto context = std::make_shared<coordinator::api::ApiContext>();
  context->model.served_names = {"tiny", "alias"};
  context->model.root = "/models/tiny";
  context->model.max_model_len = 64;
  context->model.vocab_size = kTinyVocab;
  context->text = std::make_shared<TinyText>();
  context->draw_seed = [] { return uint64_t{99}; };
  return context;
}

}  // namespace chorale::test
