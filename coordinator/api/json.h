// JSON from outside: one door for every request body and job line, so that its limits hold everywhere. Used by the
// request parsers; it knows no field names.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator::api {

/// Objects keep the order of their keys, as chat templates may show it.
using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 64;
inline constexpr int kMaxJsonMembers = 1024;  // of one object; ordered objects are searched linearly

/// Failure{kInvalidArgument} for bytes that are not UTF-8, are not JSON, are nested over kMaxJsonDepth, hold a number
/// that overflows a double, or an object with more than kMaxJsonMembers keys. Of equal keys the last counts.
Result<Json> parse_json(std::string_view text);

/// Compact text; bytes that are not UTF-8 become U+FFFD.
std::string to_text(const Json& json);

/// Index of the first byte that is not well-formed UTF-8 (RFC 3629), or npos.
size_t find_invalid_utf8(std::string_view text);

}  // namespace chorale::coordinator::api
