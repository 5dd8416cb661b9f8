#include "coordinator/api/json.h"

#include <cstdint>
#include <optional>
#include <vector>

#include <nlohmann/json.hpp>

namespace chorale::coordinator::api {
namespace {

/// Depth and members are counted on the text, before anything is allocated for values.
std::optional<Failure> check_shape(std::string_view text) {
  std::vector<int> members;  // of each open object or array
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    switch (c) {
      case '"': in_string = true; break;
      case '{':
      case '[':
        members.push_back(0);
        if (members.size() > kMaxJsonDepth)
          return Failure{ErrorCode::kInvalidArgument,
                         fmt::format("the JSON is nested more than {} levels deep", kMaxJsonDepth), ""};
        break;
      case '}':
      case ']':
        if (!members.empty()) members.pop_back();
        break;
      case ':':
        if (!members.empty() && ++members.back() > kMaxJsonMembers)
          return Failure{ErrorCode::kInvalidArgument,
                         fmt::format("a JSON object has more than {} members", kMaxJsonMembers), ""};
        break;
      default: break;
    }
  }
  return std::nullopt;
}

/// Length of the well-formed sequence at the start of `s`, or 0.
size_t utf8_length(std::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(s[i]); };
  const auto continues = [&](size_t i, uint8_t low = 0x80, uint8_t high = 0xbf) {
    return i < s.size() && byte(i) >= low && byte(i) <= high;
  };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return continues(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const uint8_t low = lead == 0xe0 ? 0xa0 : 0x80;   // no overlong forms
    const uint8_t high = lead == 0xed ? 0x9f : 0xbf;  // no surrogates
    return continues(1, low, high) && continues(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const uint8_t low = lead == 0xf0 ? 0x90 : 0x80;
    const uint8_t high = lead == 0xf4 ? 0x8f : 0xbf;
    return continues(1, low, high) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const size_t length = utf8_length(text.substr(i));
    if (length == 0) return i;
    i += length;
  }
  return std::string_view::npos;
}

Result<Json> parse_json(std::string_view text) {
  const auto invalid = [](std::string message) { return Failure{ErrorCode::kInvalidArgument, std::move(message), ""}; };
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return invalid("the JSON is empty; send an object");
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos)
    return invalid(fmt::format("the JSON is not valid UTF-8 (byte {})", at));
  if (auto failure = check_shape(text)) return *failure;
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& error) {
    return invalid(fmt::format("not valid JSON at byte {}", error.byte));
  } catch (const Json::out_of_range&) {
    return invalid("the JSON holds a number that is out of range");
  }
}

std::string to_text(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace chorale::coordinator::api
