#include "coordinator/text/jinja/string_literal.h"

#include <charconv>

#include "coordinator/text/jinja/meter.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

[[noreturn]] void fail(int line, const std::string& message) {
  throw TemplateError(TemplateError::Kind::kSyntax, message, line);
}

/// Reads exactly `count` hexadecimal digits at `at`.
char32_t read_hex(std::string_view literal, size_t& at, size_t count, int line) {
  uint32_t value = 0;
  const std::string_view digits = literal.substr(at, count);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  if (digits.size() < count || error != std::errc() || end != digits.data() + count)
    fail(line, fmt::format("a string escape needs {} hexadecimal digits", count));
  if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
    fail(line, fmt::format("the string escape {:x} is no Unicode character", value));
  at += count;
  return value;
}

char32_t read_octal(std::string_view literal, size_t& at) {
  char32_t value = 0;
  for (int i = 0; i < 3 && at < literal.size() && literal[at] >= '0' && literal[at] <= '7'; ++i)
    value = value * 8 + static_cast<char32_t>(literal[at++] - '0');
  return value;
}

}  // namespace

std::string unescape(std::string_view literal, int line) {
  static constexpr std::string_view kPlain = "\\'\"abfnrtv";
  static constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";
  std::string out;
  out.reserve(literal.size());
  for (size_t at = 0; at < literal.size();) {
    const char c = literal[at++];
    if (c != '\\') {
      out += c;
      continue;
    }
    if (at == literal.size()) fail(line, "\\ at end of string");
    const char escape = literal[at];
    const size_t plain = kPlain.find(escape);
    if (plain != std::string_view::npos) {
      out += kMeaning[plain];
      ++at;
    } else if (escape == '\n') {
      ++at;  // a line that goes on
    } else if (escape >= '0' && escape <= '7') {
      append_char(out, read_octal(literal, at));
    } else if (escape == 'x' || escape == 'u' || escape == 'U') {
      append_char(out, read_hex(literal, ++at, escape == 'x' ? 2 : escape == 'u' ? 4 : 8, line));
    } else if (escape == 'N') {
      fail(line, "\\N{...} is not supported in a string; write \\u and the code");
    } else {
      out += '\\';  // not an escape: both characters stand
    }
  }
  return out;
}

}  // namespace chorale::coordinator::jinja
