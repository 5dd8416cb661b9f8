// The values a template computes with: Python's, as far as chat templates see them. Lists, tuples and dicts never
// change once made (the immutable sandbox refuses every method that would); only namespaces, iterators, loops and
// cyclers have state.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "coordinator/text/jinja/meter.h"

namespace chorale::coordinator::jinja {

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kView,
  kRange,
  kIterator,
  kNamespace,
  kCallable,
  kLoop,
  kCycler,
};

class Interpreter;
struct MacroNode;
struct Scope;

/// What a value holds on the heap. Its bytes count against the meter while it lives.
struct Object {
  Object() = default;
  Object(Meter* owner, size_t bytes) : meter(owner), charged(bytes) {
    if (meter != nullptr) meter->charge(bytes);
  }
  virtual ~Object() {
    if (meter != nullptr) meter->refund(charged);
  }
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  Meter* meter = nullptr;  // null: a constant of the template
  size_t charged = 0;
  int depth = 1;  // containers in containers; bounded, because they are freed recursively
};

struct StringObject;
struct ListObject;
struct DictObject;

class Value {
 public:
  Value() : kind_(Kind::kNone), scalar_{.integer = 0} {}
  explicit Value(bool value) : kind_(Kind::kBool), scalar_{.integer = value} {}
  explicit Value(int64_t value) : kind_(Kind::kInt), scalar_{.integer = value} {}
  explicit Value(double value) : kind_(Kind::kFloat), scalar_{.number = value} {}
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), scalar_{.integer = 0}, object_(std::move(object)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  /// bool counts as an integer, as in Python.
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }
  bool is_list_or_tuple() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }

  int64_t integer() const { return scalar_.integer; }
  double number() const { return kind_ == Kind::kFloat ? scalar_.number : static_cast<double>(scalar_.integer); }
  const std::string& text() const;
  bool is_markup() const;
  const std::vector<Value>& items() const;
  const DictObject& dict() const;
  template <typename T>
  T& as() const {
    return static_cast<T&>(*object_);
  }
  const std::shared_ptr<Object>& object() const { return object_; }

 private:
  Kind kind_;
  union {
    int64_t integer;
    double number;
  } scalar_;
  std::shared_ptr<Object> object_;
};

enum class Markup : uint8_t { kNo, kYes };

struct StringObject : Object {
  StringObject(Meter* owner, std::string value, Markup is_markup);
  std::string text;  // UTF-8
  size_t num_chars;  // code points
  Markup markup;     // the result of `safe` or `escape`: + escapes what is added to it
};

/// A list or a tuple. `grouper_list` marks the pairs that groupby makes, whose items have names.
struct ListObject : Object {
  ListObject(Meter* owner, std::vector<Value> values);
  std::vector<Value> items;
  bool grouper_list = false;
};

/// Insertion-ordered, found by hash. Keys: None, numbers, strings, tuples of such.
struct DictObject : Object {
  explicit DictObject(Meter* owner) : Object(owner, sizeof(DictObject)) {}
  /// Replaces or appends. Throws for an unhashable key.
  void set(Interpreter& interpreter, const Value& key, Value value);
  const Value* find(Interpreter& interpreter, const Value& key) const;
  std::vector<std::pair<Value, Value>> entries;

 private:
  std::optional<size_t> position(Interpreter& interpreter, uint64_t hash, const Value& key) const;
  std::unordered_multimap<uint64_t, size_t> index_;
};

enum class ViewKind : uint8_t { kKeys, kValues, kItems };
struct ViewObject : Object {
  ViewObject(Meter* owner, ViewKind of, Value source);
  ViewKind view;
  Value dict;
};

struct RangeObject : Object {
  RangeObject(Meter* owner, int64_t first, int64_t past_last, int64_t stride);
  int64_t start, stop, step;
  int64_t length;
};

/// Gives the next value, or false at the end.
using Cursor = std::function<bool(Value&)>;

/// What a generator-like filter returns: it can be walked once, and has no length.
struct IteratorObject : Object {
  IteratorObject(Meter* owner, std::string type, const Value& source, Cursor cursor);
  std::string type_name;  // "generator", "list_reverseiterator"
  Cursor next;
};

struct NamespaceObject : Object {
  explicit NamespaceObject(Meter* owner) : Object(owner, sizeof(NamespaceObject)) {}
  Value* find(Interpreter& interpreter, std::string_view name);
  void set(Interpreter& interpreter, const std::string& name, Value value);
  std::vector<std::pair<std::string, Value>> attributes;
};

struct UndefinedObject : Object {
  UndefinedObject(Meter* owner, std::string why, TemplateError::Kind raises)
      : Object(owner, sizeof(UndefinedObject) + why.size()), message(std::move(why)), error(raises) {}
  std::string message;
  TemplateError::Kind error;
};

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};
using Function = std::function<Value(Interpreter&, Arguments&)>;

/// A global function, a bound method, or a macro (then `macro` and `scope` are set and `call` is empty).
struct CallableObject : Object {
  CallableObject(Meter* owner, std::string title, const Value& source, Function function);
  std::string name;
  Function call;
  const MacroNode* macro = nullptr;
  std::shared_ptr<Scope> scope;
};

struct CyclerObject : Object {
  CyclerObject(Meter* owner, std::vector<Value> values);
  std::vector<Value> items;
  size_t position = 0;
};

/// Constructors. `meter` may be null for constants of a template.
Value make_string(Meter* meter, std::string text, Markup markup = Markup::kNo);
Value make_list(Meter* meter, std::vector<Value> items);
Value make_tuple(Meter* meter, std::vector<Value> items);
Value make_undefined(Meter* meter, std::string message, TemplateError::Kind raises = TemplateError::Kind::kUndefined);
/// `source` is what the function or cursor holds: a value, or a tuple of several.
Value make_callable(Meter* meter, std::string name, const Value& source, Function function);
Value make_iterator(Meter* meter, std::string type, const Value& source, Cursor cursor);

/// Throws what using `value` (an undefined one) throws.
[[noreturn]] void raise_undefined(const Value& value);
/// Python's name of the type: "str", "dict", "NoneType".
std::string_view type_name(const Value& value);
/// Python's hash contract: equal values have equal hashes. Throws for lists, dicts.
uint64_t hash_value(Interpreter& interpreter, const Value& value);

}  // namespace chorale::coordinator::jinja
