#include "coordinator/text/chat_template.h"

#include <nlohmann/json.hpp>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/parser.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator {
namespace {

constexpr int kMaxJsonDepth = 100;

/// A JSON value as the template sees it. Throws TemplateError where it is nested too deep or a number does not fit.
template <typename Json>
jinja::Value to_value(jinja::Interpreter& interpreter, const Json& json, int depth = 0) {
  if (depth > kMaxJsonDepth) jinja::raise("messages are nested more than {} deep", kMaxJsonDepth);
  switch (json.type()) {
    case Json::value_t::boolean: return jinja::Value(json.template get<bool>());
    case Json::value_t::number_integer: return jinja::Value(json.template get<int64_t>());
    case Json::value_t::number_unsigned: {
      const auto value = json.template get<uint64_t>();
      if (value > static_cast<uint64_t>(INT64_MAX)) jinja::raise("integer overflow: {} does not fit 64 bits", value);
      return jinja::Value(static_cast<int64_t>(value));
    }
    case Json::value_t::number_float: return jinja::Value(json.template get<double>());
    case Json::value_t::string: return interpreter.string(json.template get_ref<const std::string&>());
    case Json::value_t::array: {
      std::vector<jinja::Value> items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(to_value(interpreter, item, depth + 1));
      return interpreter.list(std::move(items));
    }
    case Json::value_t::object: {
      const auto dict = std::make_shared<jinja::DictObject>(&interpreter.meter());
      for (const auto& [key, item] : json.items())
        dict->set(interpreter, interpreter.string(key), to_value(interpreter, item, depth + 1));
      return jinja::Value(jinja::Kind::kDict, dict);
    }
    default: return jinja::Value();
  }
}

ErrorCode code_of(jinja::TemplateError::Kind kind) {
  return kind == jinja::TemplateError::Kind::kLimit ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument;
}

std::tm local_now() {
  const std::time_t now = std::time(nullptr);
  std::tm broken_down{};
  localtime_r(&now, &broken_down);
  return broken_down;
}

int line_of_bad_byte(const std::string& source) {
  int line = 1;
  size_t begin = 0;
  for (size_t end = source.find('\n'); end != std::string::npos; end = source.find('\n', begin)) {
    if (!jinja::is_utf8(std::string_view(source).substr(begin, end - begin))) break;
    begin = end + 1;
    ++line;
  }
  return line;
}

/// What transformers does to each message: reasoning under any of its names is given under the standard one as well.
template <typename Json>
Json with_reasoning_aliases(const Json& messages) {
  Json out = messages;
  if (!out.is_array()) return out;
  for (Json& message : out) {
    if (!message.is_object()) continue;
    for (const char* name : {"reasoning_content", "thinking", "reasoning"}) {
      const auto found = message.find(name);
      if (found == message.end() || found->is_null()) continue;
      const Json reasoning = *found;
      if (!message.contains("thinking")) {
        Json renamed = Json::object();
        renamed["thinking"] = reasoning;  // first, as it is there
        renamed.update(message);
        message = std::move(renamed);
      }
      message["reasoning_content"] = reasoning;
      break;
    }
  }
  return out;
}

template <typename Json>
Result<std::string> render_with(const jinja::Template& parsed, const RenderLimits& limits,
                                const ChatTemplate::Clock& clock, const Json& messages,
                                AddGenerationPrompt add_generation_prompt, const Json& variables) {
  jinja::Interpreter interpreter(parsed, limits, clock);
  const auto variable = [&](const std::string& name) -> std::optional<jinja::Value> {
    if (variables.is_object())
      if (const auto found = variables.find(name); found != variables.end()) return to_value(interpreter, *found);
    if (name == "messages") return to_value(interpreter, with_reasoning_aliases(messages));
    if (name == "add_generation_prompt") return jinja::Value(add_generation_prompt == AddGenerationPrompt::kYes);
    if (name == "tools" || name == "documents") return jinja::Value();
    return std::nullopt;
  };
  try {
    return interpreter.run(variable);
  } catch (const jinja::TemplateError& error) {
    if (error.kind() == jinja::TemplateError::Kind::kRaised)
      return Failure{code_of(error.kind()), error.what(), "messages"};
    return Failure{code_of(error.kind()), fmt::format("chat template, line {}: {}", interpreter.line(), error.what()),
                   "messages"};
  }
}

}  // namespace

Result<ChatTemplate> ChatTemplate::compile(std::string source) {
  if (!jinja::is_utf8(source))
    return Failure{ErrorCode::kCorrupt,
                   fmt::format("chat template, line {}: not valid UTF-8", line_of_bad_byte(source)), "chat_template"};
  try {
    ChatTemplate result;
    result.template_ = std::make_shared<const jinja::Template>(jinja::parse(source));
    result.source_ = std::move(source);
    result.clock_ = local_now;
    return result;
  } catch (const jinja::TemplateError& error) {
    return Failure{code_of(error.kind()), fmt::format("chat template, line {}: {}", error.line(), error.what()),
                   "chat_template"};
  }
}

Result<std::string> ChatTemplate::render(const nlohmann::json& messages, AddGenerationPrompt add_generation_prompt,
                                         const nlohmann::json& variables) const {
  return render_with(*template_, limits_, clock_, messages, add_generation_prompt, variables);
}

Result<std::string> ChatTemplate::render(const nlohmann::ordered_json& messages,
                                         AddGenerationPrompt add_generation_prompt,
                                         const nlohmann::ordered_json& variables) const {
  return render_with(*template_, limits_, clock_, messages, add_generation_prompt, variables);
}

}  // namespace chorale::coordinator
