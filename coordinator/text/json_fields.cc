#include "coordinator/text/json_fields.h"

#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

constexpr int kMaxNesting = 64;

void check_nesting(std::string_view text, const std::string& name) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxNesting)
        fail(ErrorCode::kCorrupt, "{}: JSON is nested deeper than {} levels at byte {}", name, kMaxNesting, i);
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
}

}  // namespace

nlohmann::json parse_json(std::string_view text, const std::string& name) {
  check_nesting(text, name);
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& error) {
    const auto* at = dynamic_cast<const nlohmann::json::parse_error*>(&error);
    fail(ErrorCode::kCorrupt, "{}: not valid JSON{}", name,
         at != nullptr ? fmt::format(" at byte {}", at->byte) : ", or a number that is out of range");
  }
}

bool JsonAt::is_null() const { return value_->is_null(); }

void JsonAt::bad(std::string_view problem) const { fail(ErrorCode::kCorrupt, "{}: {}", where_, problem); }

JsonAt JsonAt::member(std::string_view key) const {
  if (!value_->is_object()) bad(fmt::format("expected an object, found {}", value_->type_name()));
  const auto found = value_->find(key);
  if (found == value_->end()) bad(fmt::format("'{}' is missing", key));
  return {*found, fmt::format("{}.{}", where_, key)};
}

std::optional<JsonAt> JsonAt::find(std::string_view key) const {
  if (!value_->is_object()) bad(fmt::format("expected an object, found {}", value_->type_name()));
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return JsonAt(*found, fmt::format("{}.{}", where_, key));
}

const std::string& JsonAt::string() const {
  if (!value_->is_string()) bad(fmt::format("expected a string, found {}", value_->type_name()));
  return value_->get_ref<const std::string&>();
}

bool JsonAt::boolean() const {
  if (!value_->is_boolean()) bad(fmt::format("expected true or false, found {}", value_->type_name()));
  return value_->get<bool>();
}

int64_t JsonAt::integer() const {
  if (!value_->is_number_integer()) bad(fmt::format("expected an integer, found {}", value_->type_name()));
  if (value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    bad("the integer is too large");
  return value_->get<int64_t>();
}

void JsonAt::each(const std::function<void(const JsonAt&)>& visit) const {
  if (!value_->is_array()) bad(fmt::format("expected a list, found {}", value_->type_name()));
  for (size_t i = 0; i < value_->size(); ++i) visit({(*value_)[i], fmt::format("{}[{}]", where_, i)});
}

std::string JsonAt::string_or(std::string_view key, std::string_view fallback) const {
  const auto found = find(key);
  return found ? found->string() : std::string(fallback);
}
bool JsonAt::boolean_or(std::string_view key, bool fallback) const {
  const auto found = find(key);
  return found ? found->boolean() : fallback;
}
int64_t JsonAt::integer_or(std::string_view key, int64_t fallback) const {
  const auto found = find(key);
  return found ? found->integer() : fallback;
}
char32_t JsonAt::character() const {
  const std::string& text = string();
  size_t offset = 0;
  const char32_t c = text.empty() ? 0 : next_char(text, offset);
  if (text.empty() || offset != text.size()) bad("expected one character");
  return c;
}
char32_t JsonAt::character_or(std::string_view key, char32_t fallback) const {
  const auto found = find(key);
  return found ? found->character() : fallback;
}

}  // namespace chorale::coordinator::text
