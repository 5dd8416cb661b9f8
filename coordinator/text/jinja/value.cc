#include "coordinator/text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

constexpr int kMaxContainerDepth = 200;
constexpr size_t kIndexFrom = 8;  // below, walking a dict beats hashing

void deepen(Object& outer, const Value& inner) {
  if (inner.object() == nullptr) return;
  outer.depth = std::max(outer.depth, inner.object()->depth + 1);
  if (outer.depth > kMaxContainerDepth)
    throw TemplateError(TemplateError::Kind::kLimit,
                        fmt::format("values are nested more than {} deep", kMaxContainerDepth));
}

}  // namespace

const std::string& Value::text() const { return as<StringObject>().text; }
bool Value::is_markup() const { return kind_ == Kind::kString && as<StringObject>().markup == Markup::kYes; }
const std::vector<Value>& Value::items() const { return as<ListObject>().items; }
const DictObject& Value::dict() const { return as<DictObject>(); }

StringObject::StringObject(Meter* owner, std::string value, Markup is_markup)
    : Object(owner, sizeof(StringObject) + value.size()),
      text(std::move(value)),
      num_chars(count_chars(text)),
      markup(is_markup) {}

ListObject::ListObject(Meter* owner, std::vector<Value> values)
    : Object(owner, sizeof(ListObject) + values.size() * sizeof(Value)), items(std::move(values)) {
  for (const Value& item : items) deepen(*this, item);
}

void DictObject::set(Interpreter& interpreter, const Value& key, Value value) {
  const uint64_t hash = hash_value(interpreter, key);
  deepen(*this, key);
  deepen(*this, value);
  if (const auto at = position(interpreter, hash, key)) {
    entries[*at].second = std::move(value);
    return;
  }
  if (meter != nullptr) {
    constexpr size_t kEntryBytes = sizeof(entries[0]) + 4 * sizeof(void*);
    meter->charge(kEntryBytes);
    charged += kEntryBytes;
  }
  entries.emplace_back(key, std::move(value));
  if (entries.size() == kIndexFrom) {
    for (size_t i = 0; i < entries.size(); ++i) index_.emplace(hash_value(interpreter, entries[i].first), i);
  } else if (entries.size() > kIndexFrom) {
    index_.emplace(hash, entries.size() - 1);
  }
}

const Value* DictObject::find(Interpreter& interpreter, const Value& key) const {
  const auto at = position(interpreter, hash_value(interpreter, key), key);
  return at ? &entries[*at].second : nullptr;
}

std::optional<size_t> DictObject::position(Interpreter& interpreter, uint64_t hash, const Value& key) const {
  if (entries.size() < kIndexFrom) {
    for (size_t i = 0; i < entries.size(); ++i)
      if (equals(interpreter, entries[i].first, key)) return i;
    return std::nullopt;
  }
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it)
    if (equals(interpreter, entries[it->second].first, key)) return it->second;
  return std::nullopt;
}

ViewObject::ViewObject(Meter* owner, ViewKind of, Value source)
    : Object(owner, sizeof(ViewObject)), view(of), dict(std::move(source)) {
  deepen(*this, dict);
}

RangeObject::RangeObject(Meter* owner, int64_t first, int64_t past_last, int64_t stride)
    : Object(owner, sizeof(RangeObject)), start(first), stop(past_last), step(stride), length(0) {
  // In unsigned arithmetic, because the distance of two int64 may not fit one.
  if (step > 0 && start < stop)
    length = static_cast<int64_t>(
        (static_cast<uint64_t>(stop) - static_cast<uint64_t>(start) - 1) / static_cast<uint64_t>(step) + 1);
  if (step < 0 && start > stop)
    length = static_cast<int64_t>(
        (static_cast<uint64_t>(start) - static_cast<uint64_t>(stop) - 1) / (0 - static_cast<uint64_t>(step)) + 1);
  if (length < 0 || length > 100000) raise("Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
}

IteratorObject::IteratorObject(Meter* owner, std::string type, const Value& source, Cursor cursor)
    : Object(owner, sizeof(IteratorObject)), type_name(std::move(type)), next(std::move(cursor)) {
  deepen(*this, source);
}

Value* NamespaceObject::find(Interpreter& interpreter, std::string_view name) {
  interpreter.meter().step(1 + attributes.size() / 16);
  for (auto& [key, value] : attributes)
    if (key == name) return &value;
  return nullptr;
}

void NamespaceObject::set(Interpreter& interpreter, const std::string& name, Value value) {
  if (name.starts_with('_'))
    throw TemplateError(
        TemplateError::Kind::kSecurity,
        fmt::format("Chat templates cannot store underscore-prefixed attributes on a namespace, but got "
                    "'{}'. Please rename the attribute.",
                    name));
  if (Value* old = find(interpreter, name)) {
    *old = std::move(value);
    return;
  }
  const size_t bytes = sizeof(attributes[0]) + name.size();
  if (meter != nullptr) {
    meter->charge(bytes);
    charged += bytes;
  }
  attributes.emplace_back(name, std::move(value));
}

CallableObject::CallableObject(Meter* owner, std::string title, const Value& source, Function function)
    : Object(owner, sizeof(CallableObject)), name(std::move(title)), call(std::move(function)) {
  deepen(*this, source);
}

CyclerObject::CyclerObject(Meter* owner, std::vector<Value> values)
    : Object(owner, sizeof(CyclerObject) + values.size() * sizeof(Value)), items(std::move(values)) {
  for (const Value& item : items) deepen(*this, item);
}

Value make_string(Meter* meter, std::string text, Markup markup) {
  return Value(Kind::kString, std::make_shared<StringObject>(meter, std::move(text), markup));
}
Value make_list(Meter* meter, std::vector<Value> items) {
  return Value(Kind::kList, std::make_shared<ListObject>(meter, std::move(items)));
}
Value make_tuple(Meter* meter, std::vector<Value> items) {
  return Value(Kind::kTuple, std::make_shared<ListObject>(meter, std::move(items)));
}
Value make_undefined(Meter* meter, std::string message, TemplateError::Kind raises) {
  return Value(Kind::kUndefined, std::make_shared<UndefinedObject>(meter, std::move(message), raises));
}
Value make_callable(Meter* meter, std::string name, const Value& source, Function function) {
  return Value(Kind::kCallable, std::make_shared<CallableObject>(meter, std::move(name), source, std::move(function)));
}
Value make_iterator(Meter* meter, std::string type, const Value& source, Cursor cursor) {
  return Value(Kind::kIterator, std::make_shared<IteratorObject>(meter, std::move(type), source, std::move(cursor)));
}

void raise_undefined(const Value& value) {
  const auto& undefined = value.as<UndefinedObject>();
  throw TemplateError(undefined.error, undefined.message);
}

std::string_view type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined: return "Undefined";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kString: return value.is_markup() ? "Markup" : "str";
    case Kind::kList: return "list";
    case Kind::kTuple: return "tuple";
    case Kind::kDict: return "dict";
    case Kind::kView: {
      const ViewKind view = value.as<ViewObject>().view;
      return view == ViewKind::kKeys ? "dict_keys" : view == ViewKind::kValues ? "dict_values" : "dict_items";
    }
    case Kind::kRange: return "range";
    case Kind::kIterator: return value.as<IteratorObject>().type_name;
    case Kind::kNamespace: return "TemplateNamespace";
    case Kind::kCallable: return value.as<CallableObject>().macro != nullptr ? "Macro" : "function";
    case Kind::kLoop: return "LoopContext";
    case Kind::kCycler: return "Cycler";
  }
  return "object";
}

uint64_t hash_value(Interpreter& interpreter, const Value& value) {
  interpreter.meter().step();
  switch (value.kind()) {
    case Kind::kNone: return 0x9e3779b97f4a7c15u;
    case Kind::kBool:
    case Kind::kInt: return std::hash<int64_t>()(value.integer());
    case Kind::kFloat: {
      const double number = value.number();
      if (number == std::floor(number) && std::abs(number) < 9.2e18)
        return std::hash<int64_t>()(static_cast<int64_t>(number));  // 1.0 == 1
      return std::hash<double>()(number);
    }
    case Kind::kString: return std::hash<std::string>()(value.text());
    case Kind::kTuple: {
      uint64_t hash = 17;
      for (const Value& item : value.items()) hash = hash * 1000003 + hash_value(interpreter, item);
      return hash;
    }
    case Kind::kList:
    case Kind::kDict:
    case Kind::kView: raise("unhashable type: '{}'", type_name(value));
    case Kind::kUndefined: return 1;
    default: return std::hash<const void*>()(value.object().get());
  }
}

}  // namespace chorale::coordinator::jinja
