// Typed reading of JSON objects from outside: every wrong type or missing field is an Error{kCorrupt} that names the
// place
// ("tokenizer.json: model.merges[3]: expected a string, found a number"). Used by the loaders of tokenizer files only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace chorale::coordinator::text {

/// Parses, refusing nesting deeper than 64. `name` stands in messages.
nlohmann::json parse_json(std::string_view text, const std::string& name);

/// One JSON value and where it stands. Does not own.
class JsonAt {
 public:
  JsonAt(const nlohmann::json& value, std::string where) : value_(&value), where_(std::move(where)) {}

  const nlohmann::json& json() const { return *value_; }
  const std::string& where() const { return where_; }
  bool is_null() const;
  [[noreturn]] void bad(std::string_view problem) const;

  /// Member of an object. member() throws when it is absent; find() gives nullopt when it is absent or null.
  JsonAt member(std::string_view key) const;
  std::optional<JsonAt> find(std::string_view key) const;

  const std::string& string() const;
  bool boolean() const;
  int64_t integer() const;
  /// Elements of an array, in order.
  void each(const std::function<void(const JsonAt&)>& visit) const;

  std::string string_or(std::string_view key, std::string_view fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  int64_t integer_or(std::string_view key, int64_t fallback) const;
  /// A string of exactly one character.
  char32_t character() const;
  char32_t character_or(std::string_view key, char32_t fallback) const;

 private:
  const nlohmann::json* value_;
  std::string where_;
};

}  // namespace chorale::coordinator::text
