// The methods of str that give text, lists or positions.
#include <algorithm>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/format.h"
#include "coordinator/text/jinja/methods.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

template <std::string (*kConvert)(std::string_view)>
Value convert(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("str method", arguments, {});
  return interpreter.string(kConvert(self.text()));
}

enum class Side : uint8_t { kLeft, kRight, kBoth };

template <Side kSide>
Value strip(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("strip", arguments, {"chars"});
  std::string_view text = self.text();
  interpreter.meter().step(1 + text.size() / 64);
  if (bound[0].is_none()) {
    if (kSide != Side::kRight) text = strip_space_left(text);
    if (kSide != Side::kLeft) text = strip_space_right(text);
    return interpreter.string(std::string(text));
  }
  const std::u32string chars = decode(bound.text(0));
  const auto strips = [&](char32_t c) {
    interpreter.meter().step(1 + chars.size() / 64);
    return chars.find(c) != std::u32string::npos;
  };
  while (kSide != Side::kRight && !text.empty()) {
    size_t at = 0;
    if (!strips(next_char(text, at))) break;
    text.remove_prefix(at);
  }
  while (kSide != Side::kLeft && !text.empty()) {
    size_t end = text.size();
    if (!strips(previous_char(text, end))) break;
    text = text.substr(0, end);
  }
  return interpreter.string(std::string(text));
}

/// Pieces at white space, at most `limit` cuts (negative: any number), from the left or the right.
std::vector<Value> split_space(Interpreter& interpreter, std::string_view text, int64_t limit, Side from) {
  std::vector<Value> pieces;
  const auto add = [&](std::string_view piece) { pieces.push_back(interpreter.string(std::string(piece))); };
  while (true) {
    text = from == Side::kLeft ? strip_space_left(text) : strip_space_right(text);
    if (text.empty()) break;
    if (limit-- == 0) {
      add(text);  // the far end keeps its white space
      break;
    }
    size_t at = from == Side::kLeft ? 0 : text.size();
    while (from == Side::kLeft ? at < text.size() : at > 0) {
      size_t next = at;
      if (is_space(from == Side::kLeft ? next_char(text, next) : previous_char(text, next))) break;
      at = next;
    }
    add(from == Side::kLeft ? text.substr(0, at) : text.substr(at));
    text = from == Side::kLeft ? text.substr(at) : text.substr(0, at);
  }
  if (from == Side::kRight) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<Value> split_at(Interpreter& interpreter, std::string_view text, std::string_view separator, int64_t limit,
                            Side from) {
  std::vector<Value> pieces;
  const auto add = [&](std::string_view piece) { pieces.push_back(interpreter.string(std::string(piece))); };
  while (limit-- != 0) {
    const size_t at = from == Side::kLeft ? text.find(separator) : text.rfind(separator);
    if (at == std::string_view::npos) break;
    add(from == Side::kLeft ? text.substr(0, at) : text.substr(at + separator.size()));
    text = from == Side::kLeft ? text.substr(at + separator.size()) : text.substr(0, at);
  }
  add(text);
  if (from == Side::kRight) std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

template <Side kFrom>
Value split(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("split", arguments, {"sep", "maxsplit"});
  const int64_t limit = std::max<int64_t>(bound.integer(1, -1), -1);
  interpreter.meter().step(1 + self.text().size() / 64);
  if (bound[0].is_none()) return interpreter.list(split_space(interpreter, self.text(), limit, kFrom));
  if (bound.text(0).empty()) raise("empty separator");
  return interpreter.list(split_at(interpreter, self.text(), bound.text(0), limit, kFrom));
}

Value split_into_lines(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("splitlines", arguments, {"keepends"});
  std::vector<Value> lines;
  for (const std::string_view line : split_lines(self.text(), bound.truth(0, false)))
    lines.push_back(interpreter.string(std::string(line)));
  return interpreter.list(std::move(lines));
}

template <Side kFrom>
Value partition(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("partition", arguments, {"sep"}, 1);
  const std::string& text = self.text();
  const std::string& separator = bound.text(0);
  if (separator.empty()) raise("empty separator");
  const size_t at = kFrom == Side::kLeft ? text.find(separator) : text.rfind(separator);
  const Value empty = interpreter.string("");
  if (at == std::string::npos)
    return kFrom == Side::kLeft ? interpreter.tuple({self, empty, empty}) : interpreter.tuple({empty, empty, self});
  return interpreter.tuple(
      {interpreter.string(text.substr(0, at)), bound[0], interpreter.string(text.substr(at + separator.size()))});
}

Value replace(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("replace", arguments, {"old", "new", "count"}, 2);
  const std::string& text = self.text();
  const std::string &old = bound.text(0), &fresh = bound.text(1);
  int64_t left = bound.integer(2, -1);
  std::string out;
  size_t at = 0;
  const auto add = [&](std::string_view piece) {
    interpreter.meter().step(1 + piece.size() / 64);
    interpreter.meter().check_output(out.size() + piece.size());
    out += piece;
  };
  while (left != 0) {
    const size_t found = text.find(old, at);
    if (found == std::string::npos) break;
    add(std::string_view(text).substr(at, found - at));
    add(fresh);
    at = found + old.size();
    if (left > 0) --left;
    if (!old.empty()) continue;
    if (at >= text.size()) return interpreter.string(std::move(out));
    const size_t begin = at;  // between all characters
    next_char(text, at);
    add(std::string_view(text).substr(begin, at - begin));
  }
  add(std::string_view(text).substr(at));
  return interpreter.string(std::move(out));
}

Value join(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("join", arguments, {"iterable"}, 1);
  std::string out;
  int64_t count = 0;
  const Cursor cursor = iterate(interpreter, bound[0]);
  for (Value item; cursor(item); ++count) {
    if (!item.is_string()) raise("sequence item {}: expected str instance, {} found", count, type_name(item));
    if (count > 0) out += self.text();
    out += item.text();
    interpreter.meter().step(1 + (self.text().size() + item.text().size()) / 64);
    interpreter.meter().check_output(out.size());
  }
  return interpreter.string(std::move(out));
}

enum class Missing : uint8_t { kMinusOne, kError };

template <Side kFrom, Missing kMissing>
Value find(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("find", arguments, {"sub", "start", "end"}, 1);
  const std::string& text = self.text();
  const int64_t size = *length(self);
  interpreter.meter().step(1 + text.size() / 64);
  const auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
  const int64_t start = bound[1].is_none() ? 0 : bound.integer(1, 0);
  const int64_t begin = clamp(start);
  const int64_t end = bound[2].is_none() ? size : clamp(bound.integer(2, size));
  int64_t result = -1;
  if (start <= size && begin <= end) {
    const size_t from = byte_offset(text, static_cast<size_t>(begin));
    const size_t to = byte_offset(text, static_cast<size_t>(end));
    const std::string_view window = std::string_view(text).substr(from, to - from);
    const size_t at = kFrom == Side::kLeft ? window.find(bound.text(0)) : window.rfind(bound.text(0));
    if (at != std::string_view::npos) result = begin + static_cast<int64_t>(count_chars(window.substr(0, at)));
  }
  if (result < 0 && kMissing == Missing::kError) raise("substring not found");
  return Value(result);
}

Value count(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"sub", "start", "end"}, 1);
  const Value window = bound.has(1) ? get_slice(interpreter, self, bound[1], bound[2], Value()) : self;
  const std::string &text = window.text(), &sub = bound.text(0);
  interpreter.meter().step(1 + text.size() / 64);
  if (sub.empty()) return Value(*length(window) + 1);
  int64_t found = 0;
  for (size_t at = text.find(sub); at != std::string::npos; at = text.find(sub, at + sub.size())) ++found;
  return Value(found);
}

template <Side kAt>
Value remove_affix(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("removeprefix", arguments, {"affix"}, 1);
  const std::string& affix = bound.text(0);
  std::string_view text = self.text();
  if (kAt == Side::kLeft && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (kAt == Side::kRight && text.ends_with(affix)) text.remove_suffix(affix.size());
  return interpreter.string(std::string(text));
}

/// Text kept at `kKeep` (both: in the middle) of `width` characters.
template <Side kKeep>
Value pad(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("ljust", arguments, {"width", "fillchar"}, 1);
  const std::string fill = bound.text(1, " ");
  if (count_chars(fill) != 1) raise("The fill character must be exactly one character long");
  const int64_t missing = bound.integer(0, 0) - *length(self);
  if (missing <= 0) return self;
  interpreter.meter().check_output(static_cast<size_t>(missing) * fill.size());
  interpreter.meter().step(static_cast<uint64_t>(missing) / 16);
  int64_t left = kKeep == Side::kLeft ? 0 : missing;
  if (kKeep == Side::kBoth) left = missing / 2 + (missing & bound.integer(0, 0) & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.text();
  for (int64_t i = left; i < missing; ++i) out += fill;
  return interpreter.string(std::move(out));
}

Value zero_fill(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("zfill", arguments, {"width"}, 1);
  const int64_t missing = bound.integer(0, 0) - *length(self);
  if (missing <= 0) return self;
  interpreter.meter().check_output(static_cast<size_t>(missing));
  const std::string& text = self.text();
  const bool has_sign = text.starts_with('-') || text.starts_with('+');
  return interpreter.string(text.substr(0, has_sign) + std::string(static_cast<size_t>(missing), '0') +
                            text.substr(has_sign));
}

Value format_map(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("format_map", arguments, {"mapping"}, 1);
  if (!bound[0].is(Kind::kDict)) raise("format_map() needs a mapping, not {}", type_name(bound[0]));
  Arguments named;
  for (const auto& [key, value] : bound[0].dict().entries)
    if (key.is_string()) named.named.emplace_back(key.text(), value);
  return format_braces(interpreter, self, named);
}

struct NamedMethod {
  std::string_view name;
  Method method;
};
constexpr NamedMethod kMethods[] = {
    {"capitalize", convert<to_capital>},
    {"casefold", convert<to_casefold>},
    {"center", pad<Side::kBoth>},
    {"count", count},
    {"find", find<Side::kLeft, Missing::kMinusOne>},
    {"format", format_braces},
    {"format_map", format_map},
    {"index", find<Side::kLeft, Missing::kError>},
    {"join", join},
    {"ljust", pad<Side::kLeft>},
    {"lower", convert<to_lower>},
    {"lstrip", strip<Side::kLeft>},
    {"partition", partition<Side::kLeft>},
    {"removeprefix", remove_affix<Side::kLeft>},
    {"removesuffix", remove_affix<Side::kRight>},
    {"replace", replace},
    {"rfind", find<Side::kRight, Missing::kMinusOne>},
    {"rindex", find<Side::kRight, Missing::kError>},
    {"rjust", pad<Side::kRight>},
    {"rpartition", partition<Side::kRight>},
    {"rsplit", split<Side::kRight>},
    {"rstrip", strip<Side::kRight>},
    {"split", split<Side::kLeft>},
    {"splitlines", split_into_lines},
    {"strip", strip<Side::kBoth>},
    {"swapcase", convert<swap_case>},
    {"title", convert<to_title>},
    {"upper", convert<to_upper>},
    {"zfill", zero_fill},
};

}  // namespace

Method find_string_method(std::string_view name) {
  for (const NamedMethod& entry : kMethods)
    if (entry.name == name) return entry.method;
  return nullptr;
}

}  // namespace chorale::coordinator::jinja
