#include "coordinator/api/chat_messages.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {
namespace {

constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool", "function"};

/// The text of a message's content; text parts are joined with newlines, as vLLM does.
std::optional<std::string> read_content(Fields& fields, const Json& message, const std::string& where,
                                        bool may_be_absent) {
  const auto it = message.find("content");
  if (it == message.end() || it->is_null()) {
    if (!may_be_absent) fields.reject(where + ".content", fmt::format("'{}.content' is missing", where));
    return std::string();
  }
  if (it->is_string()) return it->get<std::string>();
  if (!it->is_array()) {
    fields.reject(where + ".content",
                  fmt::format("'{}.content' must be a string or a list of text parts, not {}", where, kind_of(*it)));
    return std::nullopt;
  }
  std::string text;
  for (size_t i = 0; i < it->size(); ++i) {
    const Json& part = (*it)[i];
    const std::string name = fmt::format("{}.content[{}]", where, i);
    const std::string type =
        part.is_object() && part.contains("type") && part.at("type").is_string() ? part.at("type") : "";
    if (type.empty()) {
      fields.reject(name, fmt::format("'{}' must be an object with a 'type'", name));
      return std::nullopt;
    }
    if (type != "text") {
      fields.reject(
          name, fmt::format("content parts of type '{}' are not supported; this model takes text", type.substr(0, 64)),
          ErrorCode::kUnsupported);
      return std::nullopt;
    }
    if (!part.contains("text") || !part.at("text").is_string()) {
      fields.reject(name + ".text", fmt::format("'{}.text' must be a string", name));
      return std::nullopt;
    }
    if (i > 0) text.push_back('\n');
    text += part.at("text").get_ref<const std::string&>();
  }
  return text;
}

/// One message as the template sees it: its own keys without nulls, the content a string.
std::optional<Json> read_message(Fields& fields, const Json& message, const std::string& where) {
  const auto reject = [&](const std::string& key, std::string text, ErrorCode code = ErrorCode::kInvalidArgument) {
    fields.reject(where + key, std::move(text), code);
    return std::nullopt;
  };
  if (!message.is_object()) return reject("", fmt::format("'{}' must be an object, not {}", where, kind_of(message)));
  const auto role = message.find("role");
  if (role == message.end() || !role->is_string())
    return reject(".role", fmt::format("'{}.role' must be a string", where));
  const auto& name = role->get_ref<const std::string&>();
  if (std::find(kRoles.begin(), kRoles.end(), name) == kRoles.end())
    return reject(".role", fmt::format("'{}.role' is '{}'; expected one of {}", where, name.substr(0, 64),
                                       fmt::join(kRoles, ", ")));
  for (const char* key : {"tool_calls", "function_call", "audio"}) {
    const auto it = message.find(key);
    if (it != message.end() && !it->is_null() && !(it->is_array() && it->empty()))
      return reject(fmt::format(".{}", key), fmt::format("'{}.{}' is not supported by this server", where, key),
                    ErrorCode::kUnsupported);
  }
  auto content = read_content(fields, message, where, name == "assistant");
  if (!content) return std::nullopt;
  Json result = Json::object();
  for (const auto& [key, value] : message.items())
    if (!value.is_null() && key != "tool_calls") result[key] = value;
  result["content"] = std::move(*content);
  return result;
}

}  // namespace

std::vector<int32_t> read_chat_prompt(Fields& fields, AddSpecial special, const ApiContext& context) {
  const Json* messages = fields.find("messages");
  if (messages == nullptr)
    fields.reject("messages", "'messages' is missing");
  else if (!messages->is_array())
    fields.reject("messages", fmt::format("'messages' must be a list, not {}", kind_of(*messages)));
  else if (messages->empty())
    fields.reject("messages", "'messages' is empty");
  const Json* kwargs = fields.object("chat_template_kwargs");
  const bool prompted = fields.boolean("add_generation_prompt").value_or(true);
  if (fields.failure()) return {};

  Json list = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    auto message = read_message(fields, (*messages)[i], fmt::format("messages[{}]", i));
    if (fields.failure()) return {};
    list.push_back(std::move(*message));
  }
  if (context.text == nullptr) {
    fields.reject("messages",
                  fmt::format("the model '{}' has no tokenizer (tokenizer.json is missing): use /v1/completions with "
                              "token ids",
                              context.model.root));
    return {};
  }
  const auto rendered = context.text->render_chat(list, prompted ? AddGenerationPrompt::kYes : AddGenerationPrompt::kNo,
                                                  kwargs != nullptr ? *kwargs : Json::object());
  if (!rendered) {
    fields.reject("messages", rendered.failure().message);
    return {};
  }
  auto ids = context.text->encode(*rendered, special);
  if (!ids) {
    fields.reject("messages", ids.failure().message);
    return {};
  }
  return std::move(*ids);
}

}  // namespace chorale::coordinator::api
