// value[key], value.name and slices, with Jinja's fallbacks from one to the other and the sandbox's refusals.
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/loop.h"
#include "coordinator/text/jinja/methods.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

/// "dict object", "None": how Jinja names the owner in its messages.
std::string owner_name(const Value& value) {
  if (value.is_none()) return "None";
  return fmt::format("{} object", type_name(value));
}

Value no_attribute(Interpreter& interpreter, const Value& value, const std::string& name) {
  return interpreter.undefined(fmt::format("'{}' has no attribute {}", owner_name(value), quoted(name)));
}

/// obj[key] as Python does it; nothing for TypeError and LookupError.
std::optional<Value> subscript(Interpreter& interpreter, const Value& value, const Value& key) {
  if (value.is_undefined()) raise_undefined(value);
  if (value.is(Kind::kDict)) {
    if (key.is(Kind::kList) || key.is(Kind::kDict) || key.is(Kind::kView)) return std::nullopt;  // unhashable
    const Value* item = value.dict().find(interpreter, key);
    return item == nullptr ? std::nullopt : std::optional<Value>(*item);
  }
  if (!key.is_integral()) return std::nullopt;
  if (!value.is_string() && !value.is_list_or_tuple() && !value.is(Kind::kRange)) return std::nullopt;
  const int64_t size = *length(value);
  int64_t index = key.integer();
  if (index < 0) index += size;
  if (index < 0 || index >= size) return std::nullopt;
  if (value.is_string()) return char_at(interpreter, value, static_cast<size_t>(index));
  if (value.is(Kind::kRange)) return Value(value.as<RangeObject>().start + index * value.as<RangeObject>().step);
  return value.items()[static_cast<size_t>(index)];
}

/// getattr(obj, name); nothing where Python has no such attribute.
std::optional<Value> attribute(Interpreter& interpreter, const Value& value, const std::string& name) {
  switch (value.kind()) {
    case Kind::kUndefined: raise_undefined(value);
    case Kind::kNamespace: {
      const Value* found = value.as<NamespaceObject>().find(interpreter, name);
      return found == nullptr ? std::nullopt : std::optional<Value>(*found);
    }
    case Kind::kLoop: return loop_attribute(interpreter, value, name);
    default: return find_method(interpreter, value, name);
  }
}

struct SliceBounds {
  int64_t start, step, count;
};

/// Python's slice.indices(), and how many items that gives.
SliceBounds slice_bounds(int64_t size, const Value& start, const Value& stop, const Value& step) {
  const auto integer = [](const Value& v, int64_t otherwise) {
    if (v.is_none()) return otherwise;
    if (v.is_undefined()) raise_undefined(v);
    if (!v.is_integral()) raise("slice indices must be integers or None or have an __index__ method");
    return v.integer();
  };
  const int64_t stride = std::max(integer(step, 1), -INT64_MAX);
  if (stride == 0) raise("slice step cannot be zero");
  const int64_t low = stride < 0 ? -1 : 0;
  const int64_t high = stride < 0 ? size - 1 : size;
  const auto clamp = [&](const Value& v, int64_t otherwise) {
    int64_t at = integer(v, otherwise);
    if (v.is_none()) return at;
    if (at < 0) at = std::max(at + size, low);
    return std::min(at, high);
  };
  const int64_t from = clamp(start, stride < 0 ? high : low);
  const int64_t to = clamp(stop, stride < 0 ? low : high);
  int64_t count = 0;
  if (stride > 0 && from < to) count = (to - from - 1) / stride + 1;
  if (stride < 0 && to < from) count = (from - to - 1) / -stride + 1;
  return {from, stride, count};
}

Value slice_string(Interpreter& interpreter, const Value& value, const SliceBounds& at) {
  const auto& string = value.as<StringObject>();
  const Markup markup = string.markup;
  interpreter.meter().step(1 + string.text.size() / 64);
  if (at.step == 1) {
    const size_t begin = byte_offset(string.text, static_cast<size_t>(at.start));
    const std::string_view tail = std::string_view(string.text).substr(begin);
    return interpreter.string(std::string(tail.substr(0, byte_offset(tail, static_cast<size_t>(at.count)))), markup);
  }
  const std::u32string chars = decode(string.text);
  std::u32string picked;
  for (int64_t i = 0; i < at.count; ++i) picked += chars[static_cast<size_t>(at.start + i * at.step)];
  return interpreter.string(encode(picked), markup);
}

}  // namespace

Value char_at(Interpreter& interpreter, const Value& value, size_t index) {
  const auto& string = value.as<StringObject>();
  if (string.num_chars == string.text.size()) return interpreter.string(string.text.substr(index, 1));
  interpreter.meter().step(1 + string.text.size() / 64);
  size_t at = byte_offset(string.text, index);
  const size_t begin = at;
  next_char(string.text, at);
  return interpreter.string(string.text.substr(begin, at - begin));
}

Value get_item(Interpreter& interpreter, const Value& value, const Value& key) {
  if (auto item = subscript(interpreter, value, key)) return *item;
  if (!key.is_string())
    return interpreter.undefined(fmt::format("{} has no element {}", owner_name(value), repr(interpreter, key)));
  if (auto found = attribute(interpreter, value, key.text())) return *found;
  return no_attribute(interpreter, value, key.text());
}

Value get_attribute(Interpreter& interpreter, const Value& value, const std::string& name) {
  if (auto found = attribute(interpreter, value, name)) return *found;
  if (value.is(Kind::kDict))
    if (auto item = subscript(interpreter, value, interpreter.string(name))) return *item;
  return no_attribute(interpreter, value, name);
}

Value get_slice(Interpreter& interpreter, const Value& value, const Value& start, const Value& stop,
                const Value& step) {
  if (value.is_undefined()) raise_undefined(value);
  if (value.is(Kind::kDict)) raise("unhashable type: 'slice'");
  if (!value.is_string() && !value.is_list_or_tuple() && !value.is(Kind::kRange))
    raise("'{}' object is not subscriptable", type_name(value));
  const SliceBounds at = slice_bounds(*length(value), start, stop, step);
  if (value.is_string()) return slice_string(interpreter, value, at);
  if (value.is(Kind::kRange)) {
    const auto& range = value.as<RangeObject>();
    const auto narrow = [](__int128 wide) {  // the end, which is no item, may lie outside
      return static_cast<int64_t>(std::clamp<__int128>(wide, INT64_MIN, INT64_MAX));
    };
    const __int128 stride = static_cast<__int128>(range.step) * at.step;
    const __int128 first = range.start + static_cast<__int128>(range.step) * at.start;
    return Value(Kind::kRange, std::make_shared<RangeObject>(&interpreter.meter(), narrow(first),
                                                             narrow(first + at.count * stride), narrow(stride)));
  }
  interpreter.meter().step(static_cast<uint64_t>(at.count));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(at.count));
  for (int64_t i = 0; i < at.count; ++i) items.push_back(value.items()[static_cast<size_t>(at.start + i * at.step)]);
  return value.is(Kind::kList) ? interpreter.list(std::move(items)) : interpreter.tuple(std::move(items));
}

}  // namespace chorale::coordinator::jinja
