#include "coordinator/text/jinja/operators.h"

#include <cmath>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

bool equal_items(Interpreter& interpreter, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!equals(interpreter, a[i], b[i])) return false;
  return true;
}

bool equal_dicts(Interpreter& interpreter, const DictObject& a, const DictObject& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.find(interpreter, key);
    if (other == nullptr || !equals(interpreter, value, *other)) return false;
  }
  return true;
}

bool equal_ranges(const RangeObject& a, const RangeObject& b) {
  if (a.length != b.length) return false;
  return a.length == 0 || (a.start == b.start && (a.length == 1 || a.step == b.step));
}

/// Exact for int against float, which a cast to double is not.
bool equal_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
  if (a.is_integral()) return static_cast<long double>(a.integer()) == static_cast<long double>(b.number());
  if (b.is_integral()) return static_cast<long double>(a.number()) == static_cast<long double>(b.integer());
  return a.number() == b.number();
}

bool less_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
  const auto wide = [](const Value& v) {
    return v.is_integral() ? static_cast<long double>(v.integer()) : static_cast<long double>(v.number());
  };
  return wide(a) < wide(b);
}

}  // namespace

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return false;
    case Kind::kBool:
    case Kind::kInt: return value.integer() != 0;
    case Kind::kFloat: return value.number() != 0.0;
    default: {
      const auto size = length(value);
      return !size || *size != 0;
    }
  }
}

bool equals(Interpreter& interpreter, const Value& a, const Value& b) {
  interpreter.meter().step();
  if (a.is_number() && b.is_number()) return equal_numbers(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone: return true;
    case Kind::kString: {
      interpreter.meter().step(a.text().size() / 64);
      return a.text() == b.text();
    }
    default: break;
  }
  if (a.object() == b.object()) return true;
  const Meter::Level level(interpreter.meter());
  switch (a.kind()) {
    case Kind::kList:
    case Kind::kTuple: return equal_items(interpreter, a.items(), b.items());
    case Kind::kDict: return equal_dicts(interpreter, a.dict(), b.dict());
    case Kind::kRange: return equal_ranges(a.as<RangeObject>(), b.as<RangeObject>());
    case Kind::kView: {
      const auto &x = a.as<ViewObject>(), &y = b.as<ViewObject>();
      if (x.view != y.view || x.view == ViewKind::kValues) return false;
      if (x.dict.dict().entries.size() != y.dict.dict().entries.size()) return false;
      for (const Value& item : to_vector(interpreter, a))
        if (!contains(interpreter, b, item)) return false;
      return true;
    }
    default: return false;
  }
}

bool less(Interpreter& interpreter, const Value& a, const Value& b, std::string_view symbol) {
  interpreter.meter().step();
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  if (a.is_number() && b.is_number()) return less_numbers(a, b);
  if (a.is_string() && b.is_string()) {
    interpreter.meter().step(std::min(a.text().size(), b.text().size()) / 64);
    return a.text() < b.text();  // the order of UTF-8 bytes is the order of code points
  }
  if (a.is_list_or_tuple() && a.kind() == b.kind()) {
    const Meter::Level level(interpreter.meter());
    const auto &x = a.items(), &y = b.items();
    for (size_t i = 0; i < x.size() && i < y.size(); ++i)
      if (!equals(interpreter, x[i], y[i])) return less(interpreter, x[i], y[i], symbol);
    return x.size() < y.size();
  }
  raise("'{}' not supported between instances of '{}' and '{}'", symbol, type_name(a), type_name(b));
}

bool compare(Interpreter& interpreter, CompareOp op, const Value& a, const Value& b) {
  const auto unordered = [&] {
    return (a.is(Kind::kFloat) && std::isnan(a.number())) || (b.is(Kind::kFloat) && std::isnan(b.number()));
  };
  const auto at_most = [&](const Value& x, const Value& y, std::string_view symbol) {
    return !less(interpreter, y, x, symbol) && !unordered();
  };
  switch (op) {
    case CompareOp::kEq: return equals(interpreter, a, b);
    case CompareOp::kNe: return !equals(interpreter, a, b);
    case CompareOp::kLt: return less(interpreter, a, b, "<");
    case CompareOp::kGt: return less(interpreter, b, a, ">");
    case CompareOp::kLe: return at_most(a, b, "<=");
    case CompareOp::kGe: return at_most(b, a, ">=");
    case CompareOp::kIn: return contains(interpreter, b, a);
    case CompareOp::kNotIn: return !contains(interpreter, b, a);
  }
  return false;
}

bool contains(Interpreter& interpreter, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.is_string()) raise("'in <string>' requires string as left operand, not {}", type_name(item));
      interpreter.meter().step(1 + container.text().size() / 64);
      return container.text().find(item.text()) != std::string::npos;
    case Kind::kDict: return container.dict().find(interpreter, item) != nullptr;
    case Kind::kNamespace:
    case Kind::kCallable:
    case Kind::kCycler:
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat: raise("argument of type '{}' is not iterable", type_name(container));
    default: break;
  }
  if (container.is(Kind::kView) && container.as<ViewObject>().view == ViewKind::kKeys)
    return contains(interpreter, container.as<ViewObject>().dict, item);
  const Cursor cursor = iterate(interpreter, container);
  for (Value value; cursor(value);)
    if (equals(interpreter, value, item)) return true;
  return false;
}

std::optional<int64_t> length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return 0;
    case Kind::kString: return static_cast<int64_t>(value.as<StringObject>().num_chars);
    case Kind::kList:
    case Kind::kTuple: return static_cast<int64_t>(value.items().size());
    case Kind::kDict: return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kView: return static_cast<int64_t>(value.as<ViewObject>().dict.dict().entries.size());
    case Kind::kRange: return value.as<RangeObject>().length;
    default: return std::nullopt;
  }
}

Cursor iterate(Interpreter& interpreter, const Value& value) {
  Interpreter* self = &interpreter;
  switch (value.kind()) {
    case Kind::kUndefined: return [](Value&) { return false; };
    case Kind::kList:
    case Kind::kTuple:
      return [self, value, i = size_t{0}](Value& out) mutable {
        self->meter().step();
        if (i >= value.items().size()) return false;
        out = value.items()[i++];
        return true;
      };
    case Kind::kString:
      return [self, value, at = size_t{0}](Value& out) mutable {
        if (at >= value.text().size()) return false;
        const size_t begin = at;
        next_char(value.text(), at);
        out = self->string(value.text().substr(begin, at - begin));
        return true;
      };
    case Kind::kDict:
    case Kind::kView: {
      const bool is_view = value.is(Kind::kView);
      const ViewKind view = is_view ? value.as<ViewObject>().view : ViewKind::kKeys;
      const Value dict = is_view ? value.as<ViewObject>().dict : value;
      return [self, dict, view, i = size_t{0}](Value& out) mutable {
        self->meter().step();
        const auto& entries = dict.dict().entries;
        if (i >= entries.size()) return false;
        const auto& [key, item] = entries[i++];
        out = view == ViewKind::kKeys ? key : view == ViewKind::kValues ? item : self->tuple({key, item});
        return true;
      };
    }
    case Kind::kRange:
      return [self, value, i = int64_t{0}](Value& out) mutable {
        self->meter().step();
        const auto& range = value.as<RangeObject>();
        if (i >= range.length) return false;
        out = Value(range.start + i++ * range.step);
        return true;
      };
    case Kind::kIterator:
      return [self, value](Value& out) {
        const Meter::Level level(self->meter());
        self->meter().step();
        return value.as<IteratorObject>().next(out);
      };
    default: raise("'{}' object is not iterable", type_name(value));
  }
}

std::vector<Value> to_vector(Interpreter& interpreter, const Value& value) {
  if (value.is_list_or_tuple()) {
    interpreter.meter().step(1 + value.items().size());
    return value.items();
  }
  std::vector<Value> items;
  const Cursor cursor = iterate(interpreter, value);
  // What is gathered here is charged as it grows; the container made of it charges for itself.
  struct Growth {
    Meter& meter;
    size_t bytes = 0;
    ~Growth() { meter.refund(bytes); }
  } growth{interpreter.meter()};
  for (Value item; cursor(item);) {
    interpreter.meter().charge(sizeof(Value));
    growth.bytes += sizeof(Value);
    items.push_back(std::move(item));
  }
  return items;
}

Value reversed(Interpreter& interpreter, const Value& value) {
  std::string type = std::string(type_name(value)) + "_reverseiterator";
  switch (value.kind()) {
    case Kind::kUndefined: raise_undefined(value);
    case Kind::kString:
    case Kind::kTuple: type = "reversed"; break;
    case Kind::kRange: type = "range_iterator"; break;
    case Kind::kDict: type = "dict_reversekeyiterator"; break;
    case Kind::kList:
    case Kind::kView: break;
    default: raise("'{}' object is not reversible", type_name(value));
  }
  const Value all = interpreter.list(to_vector(interpreter, value));
  return make_iterator(&interpreter.meter(), type, all, [all, left = all.items().size()](Value& out) mutable {
    if (left == 0) return false;
    out = all.items()[--left];
    return true;
  });
}

}  // namespace chorale::coordinator::jinja
