#include "coordinator/text/jinja/unicode.h"

#include <algorithm>

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

namespace chorale::coordinator::jinja {
namespace {

UChar32 to_icu(char32_t c) { return static_cast<UChar32>(c); }

icu::UnicodeString from_utf8(std::string_view text) {
  return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

/// One character in title case. Where the full upper case has several letters ("ss" for sharp s), only the first stays
/// large.
std::string title_char(char32_t c) {
  std::string one;
  append_char(one, c);
  const std::u32string upper = decode(to_upper(one));
  if (upper.size() <= 1) return encode(std::u32string(1, static_cast<char32_t>(u_totitle(to_icu(c)))));
  return encode(upper.substr(0, 1)) + to_lower(encode(upper.substr(1)));
}

bool is_cased(char32_t c) { return u_hasBinaryProperty(to_icu(c), UCHAR_CASED); }
bool is_upper_char(char32_t c) { return u_hasBinaryProperty(to_icu(c), UCHAR_UPPERCASE); }
bool is_lower_char(char32_t c) { return u_hasBinaryProperty(to_icu(c), UCHAR_LOWERCASE); }
bool is_ascii(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  return true;
}

}  // namespace

bool is_utf8(std::string_view text) {
  int32_t at = 0;
  const auto size = static_cast<int32_t>(text.size());
  while (at < size) {
    UChar32 c;
    U8_NEXT(text.data(), at, size, c);
    if (c < 0) return false;
  }
  return true;
}

size_t count_chars(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

size_t byte_offset(std::string_view text, size_t chars) {
  size_t at = 0;
  for (; at < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) continue;
    if (chars == 0) return at;
    --chars;
  }
  return at;
}

char32_t next_char(std::string_view text, size_t& at) {
  auto offset = static_cast<int32_t>(at);
  UChar32 c;
  U8_NEXT_OR_FFFD(text.data(), offset, static_cast<int32_t>(text.size()), c);
  at = static_cast<size_t>(offset);
  return static_cast<char32_t>(c);
}

char32_t previous_char(std::string_view text, size_t& end) {
  auto offset = static_cast<int32_t>(end);
  UChar32 c;
  U8_PREV_OR_FFFD(text.data(), 0, offset, c);
  end = static_cast<size_t>(offset);
  return static_cast<char32_t>(c);
}

void append_char(std::string& out, char32_t c) {
  char bytes[U8_MAX_LENGTH];
  int32_t size = 0;
  U8_APPEND_UNSAFE(bytes, size, to_icu(c));
  out.append(bytes, static_cast<size_t>(size));
}

std::u32string decode(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) out += next_char(text, at);
  return out;
}

std::string encode(std::u32string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char32_t c : text) append_char(out, c);
  return out;
}

std::string to_upper(std::string_view text) {
  std::string out;
  if (is_ascii(text)) {
    out.assign(text);
    for (char& c : out)
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 32);
    return out;
  }
  from_utf8(text).toUpper(icu::Locale::getRoot()).toUTF8String(out);
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  if (is_ascii(text)) {
    out.assign(text);
    for (char& c : out)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
    return out;
  }
  from_utf8(text).toLower(icu::Locale::getRoot()).toUTF8String(out);
  return out;
}

std::string to_casefold(std::string_view text) {
  std::string out;
  from_utf8(text).foldCase().toUTF8String(out);
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  bool after_cased = false;
  const std::string lower = to_lower(text);
  const bool same_length = count_chars(lower) == count_chars(text);  // else take the context-free lower case of each
  size_t lower_at = 0;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    const char32_t small = same_length ? next_char(lower, lower_at) : static_cast<char32_t>(u_tolower(to_icu(c)));
    if (after_cased)
      append_char(out, small);
    else
      out += title_char(c);
    after_cased = is_cased(c);
  }
  return out;
}

std::string to_capital(std::string_view text) {
  if (text.empty()) return {};
  size_t at = 0;
  const char32_t first = next_char(text, at);
  // The tail is lowered in its context, so that a final sigma is seen.
  const std::string lower = to_lower(text);
  std::string head;
  append_char(head, first);
  return title_char(first) + lower.substr(std::min(lower.size(), to_lower(head).size()));
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    std::string one;
    const char32_t c = next_char(text, at);
    append_char(one, c);
    out += is_upper_char(c) ? to_lower(one) : is_lower_char(c) ? to_upper(one) : one;
  }
  return out;
}

bool is_space(char32_t c) {
  // Python's list: bidirectional class WS, B or S, or category Zs.
  return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}
bool is_alpha(char32_t c) { return (U_GET_GC_MASK(to_icu(c)) & U_GC_L_MASK) != 0; }
bool is_decimal(char32_t c) { return u_charType(to_icu(c)) == U_DECIMAL_DIGIT_NUMBER; }
bool is_digit(char32_t c) {
  const int type = u_getIntPropertyValue(to_icu(c), UCHAR_NUMERIC_TYPE);
  return type == U_NT_DECIMAL || type == U_NT_DIGIT;
}
bool is_numeric(char32_t c) { return u_getIntPropertyValue(to_icu(c), UCHAR_NUMERIC_TYPE) != U_NT_NONE; }
bool is_alnum(char32_t c) { return is_alpha(c) || is_decimal(c) || is_digit(c) || is_numeric(c); }
bool is_word(char32_t c) { return c == '_' || is_alnum(c); }

bool is_printable(char32_t c) {
  if (c == ' ') return true;
  constexpr uint32_t kHidden = U_GC_C_MASK | U_GC_Z_MASK;
  return (U_GET_GC_MASK(to_icu(c)) & kHidden) == 0;
}
bool is_identifier_start(char32_t c) { return c == '_' || u_hasBinaryProperty(to_icu(c), UCHAR_XID_START); }
bool is_identifier_part(char32_t c) { return u_hasBinaryProperty(to_icu(c), UCHAR_XID_CONTINUE); }

bool is_upper(std::string_view text) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (is_lower_char(c) || u_charType(to_icu(c)) == U_TITLECASE_LETTER) return false;
    any = any || is_upper_char(c);
  }
  return any;
}

bool is_lower(std::string_view text) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (is_upper_char(c) || u_charType(to_icu(c)) == U_TITLECASE_LETTER) return false;
    any = any || is_lower_char(c);
  }
  return any;
}

bool is_title(std::string_view text) {
  bool any = false;
  bool after_cased = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    const bool large = is_upper_char(c) || u_charType(to_icu(c)) == U_TITLECASE_LETTER;
    if ((large && after_cased) || (is_lower_char(c) && !after_cased)) return false;
    after_cased = large || is_lower_char(c);
    any = any || after_cased;
  }
  return any;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t before = at;
    const char32_t c = next_char(text, at);
    const bool ends = (c >= 10 && c <= 13) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (!ends) continue;
    if (c == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(begin, (keep_ends ? at : before) - begin));
    begin = at;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string_view strip_space_left(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    size_t next = at;
    if (!is_space(next_char(text, next))) break;
    at = next;
  }
  return text.substr(at);
}

std::string_view strip_space_right(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t before = end;
    if (!is_space(previous_char(text, before))) break;
    end = before;
  }
  return text.substr(0, end);
}

}  // namespace chorale::coordinator::jinja
