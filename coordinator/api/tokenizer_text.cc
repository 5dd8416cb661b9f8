#include "coordinator/api/tokenizer_text.h"

#include <nlohmann/json.hpp>

#include "comm/base/log.h"

namespace chorale::coordinator::api {
namespace {

class TokenizerText : public ModelText {
 public:
  TokenizerText(std::shared_ptr<const Tokenizer> tokenizer, const std::optional<std::string>& chat_template)
      : tokenizer_(std::move(tokenizer)) {
    if (!chat_template) {
      no_template_ = {ErrorCode::kUnsupported,
                      "this model has no chat template: use /v1/completions, or serve it with --chat-template",
                      "messages"};
      return;
    }
    Result<ChatTemplate> compiled = ChatTemplate::compile(*chat_template);
    if (compiled) {
      template_ = std::move(*compiled);
    } else {
      no_template_ = {ErrorCode::kUnsupported, "the chat template does not compile: " + compiled.failure().message,
                      "messages"};
      log_warn("{}", no_template_.message);
    }
  }

  Result<std::vector<int32_t>> encode(std::string_view text, AddSpecial add_special) const override {
    try {
      return tokenizer_->encode(text, add_special, ParseSpecial::kYes);
    } catch (const Error& error) {  // a hostile text against a costly pattern: that request's failure, not the server's
      return Failure{error.code(), error.what(), ""};
    }
  }
  std::string decode(std::span<const int32_t> ids) const override { return tokenizer_->decode(ids, SkipSpecial::kNo); }
  std::string token_text(int32_t id) const override { return tokenizer_->token_text(id); }
  std::string token_bytes(int32_t id) const override { return tokenizer_->token_bytes(id); }

  Result<std::string> render_chat(const Json& messages, AddGenerationPrompt add_generation_prompt,
                                  const Json& variables) const override {
    if (!template_) return no_template_;
    Json all = Json::object();
    for (const auto& [name, text] : tokenizer_->special().strings) all[name] = text;
    for (const auto& [name, value] : variables.items()) all[name] = value;
    return template_->render(messages, add_generation_prompt, all);
  }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::optional<ChatTemplate> template_;
  Failure no_template_;
};

}  // namespace

std::shared_ptr<const ModelText> make_tokenizer_text(std::shared_ptr<const Tokenizer> tokenizer,
                                                     const std::optional<std::string>& chat_template) {
  return std::make_shared<TokenizerText>(std::move(tokenizer), chat_template);
}

}  // namespace chorale::coordinator::api
