#include "coordinator/api/fields.h"

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {

std::string_view kind_of(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "null";
    case Json::value_t::object: return "an object";
    case Json::value_t::array: return "a list";
    case Json::value_t::string: return "a string";
    case Json::value_t::boolean: return "a boolean";
    default: return "a number";
  }
}

std::optional<int64_t> exact_integer(const Json& value) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  if (value.is_number_unsigned()) {
    const auto number = value.get<uint64_t>();
    return number <= static_cast<uint64_t>(kMax) ? std::optional<int64_t>(number) : std::nullopt;
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (!value.is_number_float()) return std::nullopt;
  const double number = value.get<double>();
  if (std::nearbyint(number) != number || std::abs(number) > 9007199254740992.0) return std::nullopt;
  return static_cast<int64_t>(number);
}

const Json* Fields::find(std::string_view name) const {
  const auto it = object_.find(std::string(name));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void Fields::reject(std::string_view param, std::string message, ErrorCode code) {
  if (!failure_) failure_ = Failure{code, std::move(message), std::string(param)};
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t min, int64_t max) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  const auto number = exact_integer(*value);
  if (!number) {
    reject(name, value->is_number() ? fmt::format("'{}' must be an integer between {} and {}", name, min, max)
                                    : fmt::format("'{}' must be an integer, not {}", name, kind_of(*value)));
    return std::nullopt;
  }
  if (*number < min || *number > max) {
    reject(name, fmt::format("'{}' must be between {} and {}, not {}", name, min, max, *number));
    return std::nullopt;
  }
  return number;
}

std::optional<float> Fields::number(std::string_view name, double min, double max, Bound lower) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number()) {
    reject(name, fmt::format("'{}' must be a number, not {}", name, kind_of(*value)));
    return std::nullopt;
  }
  const double number = value->get<double>();
  const auto narrow = static_cast<float>(number);
  // A positive value that is 0 as float32 would change its meaning, so the bound is checked on both.
  const bool below =
      lower == Bound::kInclusive ? number < min : !(number > min) || !(static_cast<double>(narrow) > min);
  if (below || number > max || !std::isfinite(narrow)) {
    reject(name, fmt::format("'{}' must be {} {} and at most {}, not {}", name,
                             lower == Bound::kInclusive ? "at least" : "greater than", min, max, number));
    return std::nullopt;
  }
  return narrow;
}

std::optional<bool> Fields::boolean(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) {
    reject(name, fmt::format("'{}' must be a boolean, not {}", name, kind_of(*value)));
    return std::nullopt;
  }
  return value->get<bool>();
}

std::optional<std::string> Fields::string(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) {
    reject(name, fmt::format("'{}' must be a string, not {}", name, kind_of(*value)));
    return std::nullopt;
  }
  return value->get<std::string>();
}

const Json* Fields::object(std::string_view name) {
  const Json* value = find(name);
  if (value != nullptr && !value->is_object()) {
    reject(name, fmt::format("'{}' must be an object, not {}", name, kind_of(*value)));
    return nullptr;
  }
  return value;
}

std::optional<uint64_t> Fields::bits64(std::string_view name) {
  const Json* value = find(name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number_unsigned()) return value->get<uint64_t>();
  if (const auto number = exact_integer(*value)) return static_cast<uint64_t>(*number);
  reject(name, fmt::format("'{}' must be a 64-bit integer", name));
  return std::nullopt;
}

std::vector<int32_t> Fields::token_ids(const Json& list, const std::string& param, int64_t vocab_size) {
  std::vector<int32_t> ids;
  if (!list.is_array()) {
    reject(param, fmt::format("'{}' must be a list of token ids, not {}", param, kind_of(list)));
    return ids;
  }
  ids.reserve(list.size());
  for (const Json& item : list) {
    const auto id = exact_integer(item);
    if (!id || *id < 0 || *id >= vocab_size) {
      reject(param,
             id ? fmt::format("'{}' holds token id {}; the vocabulary has ids 0 to {}", param, *id, vocab_size - 1)
                : fmt::format("'{}' must hold integers, not {}", param, kind_of(item)));
      return {};
    }
    ids.push_back(static_cast<int32_t>(*id));
  }
  return ids;
}

}  // namespace chorale::coordinator::api
