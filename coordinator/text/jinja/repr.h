// Values as text: Python's str() and repr(), json.dumps, HTML escapes. Used for output, messages and the filters string
// and tojson.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

/// str(value): what {{ value }} prints.
std::string str(Interpreter& interpreter, const Value& value);
std::string repr(Interpreter& interpreter, const Value& value);
/// repr of a string: quotes and escapes as Python chooses them.
std::string quoted(std::string_view text);
/// The two-character escape that Python and JSON share for `c` (backslash, newline, carriage return, tab), or "".
std::string_view short_escape(char32_t c);
/// repr of a float: the shortest digits that read back the same.
std::string float_text(double value);
/// & < > " ' as MarkupSafe escapes them.
std::string escape_html(std::string_view text);

/// The arguments of json.dumps that templates use.
struct JsonStyle {
  enum class Ascii { kKeep, kEscape } ascii = Ascii::kKeep;
  enum class Keys { kInserted, kSorted } keys = Keys::kInserted;
  std::optional<std::string> indent;  // none: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
std::string json_text(Interpreter& interpreter, const Value& value, const JsonStyle& style);

}  // namespace chorale::coordinator::jinja
