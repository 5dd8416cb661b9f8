// "{} and {name!r:>8}".format(...), and format(value, spec).
#include <cmath>

#include "coordinator/text/jinja/format.h"
#include "coordinator/text/jinja/number_format.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

struct Spec {
  std::string fill = " ";
  char alignment = '\0';
  NumberStyle style;
  std::optional<int> width;
};

Spec parse_spec(std::string_view text, const Value& value) {
  Spec spec;
  spec.style.type = '\0';
  size_t at = 0;
  const auto at_any = [&](std::string_view chars, size_t i) {
    return i < text.size() && chars.find(text[i]) != std::string_view::npos;
  };
  size_t after_fill = 0;
  if (!text.empty()) next_char(text, after_fill);
  if (after_fill > 0 && at_any("<>=^", after_fill)) {
    spec.fill = text.substr(0, after_fill);
    spec.alignment = text[after_fill];
    at = after_fill + 1;
  } else if (at_any("<>=^", 0)) {
    spec.alignment = text[at++];
  }
  if (at_any("+- ", at)) spec.style.sign = text[at++];
  if (at_any("#", at)) spec.style.alternate = text[at++] == '#';
  if (at_any("0", at) && spec.alignment == '\0') {
    spec.alignment = value.is_number() ? '=' : '<';
    spec.fill = "0";
    ++at;
  }
  spec.width = read_size(text, at);
  if (at_any(",_", at)) spec.style.grouping = text[at++];
  if (at_any(".", at)) {
    ++at;
    spec.style.precision = read_size(text, at);
    if (!spec.style.precision) raise("Format specifier missing precision");
  }
  if (at < text.size()) spec.style.type = text[at++];
  if (at < text.size()) raise("Invalid format specifier '{}' for object of type '{}'", text, type_name(value));
  return spec;
}

[[noreturn]] void unknown_code(char type, const Value& value) {
  raise("Unknown format code '{}' for object of type '{}'", type, type_name(value));
}

std::string number_text(Spec& spec, const Value& value) {
  const std::string_view float_types = "eEfFgG%";
  char& type = spec.style.type;
  if (value.is_integral() && float_types.find(type) == std::string_view::npos) {
    if (type == 'c') raise("the format code 'c' is not supported");
    if (type == '\0' || type == 'n') type = 'd';
    if (std::string_view("dxXob").find(type) == std::string_view::npos) unknown_code(type, value);
    if (spec.style.precision) raise("Precision not allowed in integer format specifier");
    return format_integer(value.integer(), spec.style);
  }
  if (type == '\0') {
    if (!spec.style.precision) {
      const bool is_negative = std::signbit(value.number());
      const std::string sign = is_negative ? "-" : spec.style.sign == '-' ? "" : std::string(1, spec.style.sign);
      return sign + float_text(std::abs(value.number()));
    }
    type = 'g';
  }
  if (type == 'n') type = 'g';
  if (float_types.find(type) == std::string_view::npos) unknown_code(type, value);
  return format_float(value.number(), spec.style);
}

class BraceFormatter {
 public:
  BraceFormatter(Interpreter& interpreter, Arguments& arguments) : interpreter_(interpreter), arguments_(arguments) {}

  std::string run(std::string_view format, int depth) {
    if (depth < 0) raise("Max string recursion exceeded");
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at++];
      if (c != '{' && c != '}') {
        out += c;
        continue;
      }
      if (at < format.size() && format[at] == c) {
        out += c;
        ++at;
        continue;
      }
      if (c == '}') raise("Single '}}' encountered in format string");
      out += field(format, at, depth);
      interpreter_.meter().step(1 + out.size() / 1024);
      interpreter_.meter().check_output(out.size());
    }
    return out;
  }

 private:
  /// A replacement field; `at` is after its brace and moves behind its end.
  std::string field(std::string_view format, size_t& at, int depth) {
    const size_t begin = at;
    int open = 1;
    for (; at < format.size() && open > 0; ++at) open += format[at] == '{' ? 1 : format[at] == '}' ? -1 : 0;
    if (open > 0) raise("expected '}}' before end of string");
    const std::string_view body = format.substr(begin, at - 1 - begin);
    size_t name_end = 0;
    for (bool in_brackets = false; name_end < body.size(); ++name_end) {
      const char c = body[name_end];
      if (c == '[') in_brackets = true;
      if (c == ']') in_brackets = false;
      if (!in_brackets && (c == '!' || c == ':')) break;
    }
    Value value = look_up(body.substr(0, name_end));
    std::string_view rest = body.substr(name_end);
    if (rest.starts_with('!')) {
      const char conversion = rest.size() > 1 ? rest[1] : ' ';
      if (conversion != 'r' && conversion != 's' && conversion != 'a')
        raise("Unknown conversion specifier '{}'", conversion);
      value = interpreter_.string(conversion == 's' ? str(interpreter_, value) : repr(interpreter_, value));
      rest.remove_prefix(2);
      if (!rest.empty() && rest[0] != ':') raise("expected ':' after conversion specifier");
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    return format_value(interpreter_, value, run(rest, depth - 1));
  }

  Value look_up(std::string_view name) {
    size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = base(name.substr(0, end));
    while (end < name.size()) {
      const size_t begin = end + 1;
      if (name[end] == '.') {
        end = std::min(name.find_first_of(".[", begin), name.size());
        value = get_attribute(interpreter_, value, std::string(name.substr(begin, end - begin)));
        continue;
      }
      const size_t close = name.find(']', begin);
      if (close == std::string_view::npos) raise("Missing ']' in format string");
      const std::string_view key = name.substr(begin, close - begin);
      size_t digits = 0;
      const auto index = read_size(key, digits);
      const bool is_index = index && digits == key.size();
      value = get_item(interpreter_, value, is_index ? Value(int64_t{*index}) : interpreter_.string(std::string(key)));
      end = close + 1;
      if (end < name.size() && name[end] != '.' && name[end] != '[')
        raise("Only '.' or '[' may follow ']' in format field specifier");
    }
    return value;
  }

  Value base(std::string_view name) {
    size_t digits = 0;
    std::optional<int> index = read_size(name, digits);
    if (!name.empty() && (!index || digits != name.size())) {
      for (const auto& [key, value] : arguments_.named)
        if (key == name) return value;
      raise("{}", quoted(name));
    }
    if (name.empty()) index = next_++;
    if (static_cast<size_t>(*index) >= arguments_.positional.size())
      raise("Replacement index {} out of range for positional args tuple", *index);
    return arguments_.positional[static_cast<size_t>(*index)];
  }

  Interpreter& interpreter_;
  Arguments& arguments_;
  int next_ = 0;
};

}  // namespace

std::string format_value(Interpreter& interpreter, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return str(interpreter, value);
  Spec spec = parse_spec(spec_text, value);
  std::string text;
  if (value.is_number() && !(value.is(Kind::kBool) && spec.style.type == '\0')) {
    text = number_text(spec, value);
    if (spec.alignment == '\0') spec.alignment = '>';
  } else if (value.is_string() || value.is(Kind::kBool)) {
    if (spec.style.type != '\0' && spec.style.type != 's') unknown_code(spec.style.type, value);
    if (spec.alignment == '=') raise("'=' alignment not allowed in string format specifier");
    text = value.is_string() ? value.text() : std::to_string(value.integer());
    if (spec.style.precision) text = text.substr(0, byte_offset(text, static_cast<size_t>(*spec.style.precision)));
    if (spec.alignment == '\0') spec.alignment = value.is_string() ? '<' : '>';
  } else {
    raise("unsupported format string passed to {}.__format__", type_name(value));
  }
  if (!spec.width) return text;
  return align_text(text, spec.alignment, spec.fill, static_cast<size_t>(*spec.width));
}

Value format_braces(Interpreter& interpreter, const Value& format, Arguments& arguments) {
  return interpreter.string(BraceFormatter(interpreter, arguments).run(format.text(), 2));
}

}  // namespace chorale::coordinator::jinja
