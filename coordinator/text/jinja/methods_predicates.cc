// The methods of str that answer yes or no.
#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/methods.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

/// Not empty, and every character is of the class.
template <bool (*kHolds)(char32_t)>
Value all_chars(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  const std::string& text = self.text();
  for (size_t at = 0; at < text.size();)
    if (!kHolds(next_char(text, at))) return Value(false);
  return Value(!text.empty());
}

template <bool (*kHolds)(std::string_view)>
Value whole(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  return Value(kHolds(self.text()));
}

bool all_printable(std::string_view text) {
  for (size_t at = 0; at < text.size();)
    if (!is_printable(next_char(text, at))) return false;
  return true;
}

bool all_ascii(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) >= 0x80) return false;
  return true;
}

bool is_identifier(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const bool is_first = at == 0;
    const char32_t c = next_char(text, at);
    if (!(is_first ? is_identifier_start(c) : is_identifier_part(c))) return false;
  }
  return !text.empty();
}

enum class End : uint8_t { kStart, kEnd };

/// startswith and endswith: one affix or a tuple of them, in text[start:end].
template <End kEnd>
Value has_affix(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound(kEnd == End::kStart ? "startswith" : "endswith", arguments, {"prefix", "start", "end"}, 1);
  const Value window = bound.has(1) ? get_slice(interpreter, self, bound[1], bound[2], Value()) : self;
  const auto holds = [&](const Value& affix) {
    if (!affix.is_string()) raise("a tuple for startswith or endswith must only contain str, not {}", type_name(affix));
    return kEnd == End::kStart ? window.text().starts_with(affix.text()) : window.text().ends_with(affix.text());
  };
  if (!bound[0].is(Kind::kTuple)) {
    if (!bound[0].is_string())
      raise("{} first arg must be str or a tuple of str, not {}", kEnd == End::kStart ? "startswith" : "endswith",
            type_name(bound[0]));
    return Value(holds(bound[0]));
  }
  for (const Value& affix : bound[0].items())
    if (holds(affix)) return Value(true);
  return Value(false);
}

struct NamedMethod {
  std::string_view name;
  Method method;
};
constexpr NamedMethod kMethods[] = {
    {"endswith", has_affix<End::kEnd>},     {"isalnum", all_chars<is_alnum>},
    {"isalpha", all_chars<is_alpha>},       {"isascii", whole<all_ascii>},
    {"isdecimal", all_chars<is_decimal>},   {"isdigit", all_chars<is_digit>},
    {"isidentifier", whole<is_identifier>}, {"islower", whole<is_lower>},
    {"isnumeric", all_chars<is_numeric>},   {"isprintable", whole<all_printable>},
    {"isspace", all_chars<is_space>},       {"istitle", whole<is_title>},
    {"isupper", whole<is_upper>},           {"startswith", has_affix<End::kStart>},
};

}  // namespace

Method find_string_test_method(std::string_view name) {
  for (const NamedMethod& entry : kMethods)
    if (entry.name == name) return entry.method;
  return nullptr;
}

}  // namespace chorale::coordinator::jinja
