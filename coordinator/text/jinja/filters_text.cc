// Filters over text.
#include <algorithm>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/format.h"
#include "coordinator/text/jinja/methods.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

Markup markup_of(const Value& value) { return value.is_markup() ? Markup::kYes : Markup::kNo; }

/// A string as it is, anything else as str() of it.
Value soft_string(Interpreter& interpreter, const Value& value) {
  return value.is_string() ? value : interpreter.string(str(interpreter, value));
}

/// The method of str with this filter's name, on str(input).
template <std::string (*kConvert)(std::string_view)>
Value convert(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("filter", arguments, {});
  return interpreter.string(kConvert(soft_string(interpreter, input).text()), markup_of(input));
}

std::string title_words(std::string_view text) {
  std::string out;
  bool word_begins = true;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_char(text, at);
    const bool separates = c == '-' || is_space(c) || c == '(' || c == '{' || c == '[' || c == '<';
    const std::string_view one = text.substr(begin, at - begin);
    if (separates)
      out += one;
    else
      out += word_begins ? to_upper(one) : to_lower(one);
    word_begins = separates;
  }
  return out;
}

Value trim(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("trim", arguments, {"chars"});
  Arguments chars;
  if (bound.has(0)) chars.positional.push_back(bound[0]);
  const Value text = soft_string(interpreter, input);
  return interpreter.string(find_string_method("strip")(interpreter, text, chars).text(), markup_of(input));
}

Value string(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("string", arguments, {});
  return soft_string(interpreter, input);
}

Value safe(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("safe", arguments, {});
  return interpreter.string(str(interpreter, input), Markup::kYes);
}

Value escape(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("escape", arguments, {});
  return input.is_markup() ? input : interpreter.string(escape_html(str(interpreter, input)), Markup::kYes);
}

Value force_escape(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("forceescape", arguments, {});
  return interpreter.string(escape_html(str(interpreter, input)), Markup::kYes);
}

Value replace(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  Arguments plain;
  plain.positional = {interpreter.string(str(interpreter, bound[0])), interpreter.string(str(interpreter, bound[1])),
                      Value(bound[2].is_none() ? int64_t{-1} : bound.integer(2, -1))};
  return find_string_method("replace")(interpreter, interpreter.string(str(interpreter, input)), plain);
}

Value center(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("center", arguments, {"width"});
  Arguments width;
  width.positional.push_back(Value(bound.integer(0, 80)));
  return find_string_method("center")(interpreter, soft_string(interpreter, input), width);
}

Value indent(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("indent", arguments, {"width", "first", "blank"});
  if (input.is_undefined()) raise_undefined(input);
  if (!input.is_string()) raise("unsupported operand type(s) for +=: '{}' and 'str'", type_name(input));
  std::string indention;
  if (bound[0].is_string()) {
    indention = bound[0].text();
  } else {
    const int64_t width = std::max<int64_t>(bound.integer(0, 4), 0);
    interpreter.meter().check_output(static_cast<size_t>(width));
    indention.assign(static_cast<size_t>(width), ' ');
  }
  const bool indents_blank = bound.truth(2, false);
  const std::string source = input.text() + "\n";  // so that a last line feed stays
  std::string out;
  bool is_first = true;
  for (const std::string_view line : split_lines(source, false)) {
    if (!is_first) out += '\n';
    if (is_first ? bound.truth(1, false) : (indents_blank || !line.empty())) out += indention;
    out += line;
    is_first = false;
    interpreter.meter().step(1 + (indention.size() + line.size()) / 64);
    interpreter.meter().check_output(out.size());
  }
  return interpreter.string(std::move(out), markup_of(input));
}

Value truncate(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("truncate", arguments, {"length", "killwords", "end", "leeway"});
  const auto size = length(input);
  if (!size || !input.is_string()) raise("truncate needs a str, not {}", type_name(input));
  const int64_t limit = bound.integer(0, 255);
  const std::string end = bound.text(2, "...");
  const int64_t leeway = bound[3].is_none() ? 5 : bound.integer(3, 5);
  const auto end_chars = static_cast<int64_t>(count_chars(end));
  if (limit < end_chars) raise("expected length >= {}, got {}", end_chars, limit);
  if (leeway < 0) raise("expected leeway >= 0, got {}", leeway);
  if (*size <= limit || *size - limit <= leeway) return input;
  std::string head = input.text().substr(0, byte_offset(input.text(), static_cast<size_t>(limit - end_chars)));
  if (!bound.truth(1, false)) {
    const size_t space = head.rfind(' ');
    if (space != std::string::npos) head.resize(space);
  }
  return interpreter.string(head + end);
}

Value word_count(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("wordcount", arguments, {});
  const Value text = soft_string(interpreter, input);
  int64_t words = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.text().size();) {
    const bool word = is_word(next_char(text.text(), at));
    words += word && !in_word;
    in_word = word;
  }
  return Value(words);
}

Value format(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    raise("can't handle positional and keyword arguments at the same time");
  const Value text = soft_string(interpreter, input);
  if (arguments.named.empty()) return format_percent(interpreter, text, interpreter.tuple(arguments.positional));
  const auto dict = std::make_shared<DictObject>(&interpreter.meter());
  for (const auto& [name, value] : arguments.named) dict->set(interpreter, interpreter.string(name), value);
  return format_percent(interpreter, text, Value(Kind::kDict, dict));
}

Value url_encode(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("urlencode", arguments, {});
  if (!input.is_string() && length(input)) raise("urlencode of a {} is not supported", type_name(input));
  std::string out;
  for (const char c : str(interpreter, input)) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("_.-~/").find(c) != std::string_view::npos;
    if (plain)
      out += c;
    else
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return interpreter.string(std::move(out));
}

/// transformers' tojson: json.dumps with ensure_ascii, indent, separators and sort_keys.
Value to_json(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  if (bound.truth(0, false)) style.ascii = JsonStyle::Ascii::kEscape;
  if (bound.truth(3, false)) style.keys = JsonStyle::Keys::kSorted;
  if (bound[1].is_string()) {
    style.indent = bound[1].text();
  } else if (!bound[1].is_none()) {
    const int64_t width = std::clamp<int64_t>(bound.integer(1, 0), 0, 1000);
    style.indent = std::string(static_cast<size_t>(width), ' ');
  }
  if (style.indent) style.item_separator = ",";
  if (!bound[2].is_none()) {
    const std::vector<Value> both = to_vector(interpreter, bound[2]);
    if (both.size() != 2 || !both[0].is_string() || !both[1].is_string())
      raise("tojson(): 'separators' must be two strings");
    style.item_separator = both[0].text();
    style.key_separator = both[1].text();
  }
  return interpreter.string(json_text(interpreter, input, style));
}

constexpr Filter kFilters[] = {
    {"capitalize", convert<to_capital>},
    {"center", center},
    {"e", escape},
    {"escape", escape},
    {"forceescape", force_escape},
    {"format", format},
    {"indent", indent},
    {"lower", convert<to_lower>},
    {"replace", replace},
    {"safe", safe},
    {"string", string},
    {"title", convert<title_words>},
    {"tojson", to_json},
    {"trim", trim},
    {"truncate", truncate},
    {"upper", convert<to_upper>},
    {"urlencode", url_encode},
    {"wordcount", word_count},
};

}  // namespace

std::span<const Filter> text_filters() { return kFilters; }

}  // namespace chorale::coordinator::jinja
