#include "coordinator/text/jinja/methods.h"

#include <algorithm>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/operators.h"

namespace chorale::coordinator::jinja {
namespace {

/// An attribute that exists but that the sandbox does not hand out.
Value unsafe(Interpreter& interpreter, const Value& value, const std::string& name) {
  return make_undefined(&interpreter.meter(),
                        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(value)),
                        TemplateError::Kind::kSecurity);
}

template <typename Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Value view_of(Interpreter& interpreter, const Value& dict, ViewKind kind) {
  return Value(Kind::kView, std::make_shared<ViewObject>(&interpreter.meter(), kind, dict));
}

template <ViewKind kKind>
Value dict_view(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("dict view", arguments, {});
  return view_of(interpreter, self, kKind);
}

Value dict_get(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  if (!arguments.named.empty()) raise("dict.get() takes no keyword arguments");
  const Bound bound("get", arguments, {"key", "default"}, 1);
  const Value* found = self.dict().find(interpreter, bound[0]);
  return found != nullptr ? *found : bound[1];
}

Value dict_copy(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;  // dicts never change
}

Value list_copy(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("copy", arguments, {});
  return self;
}

Value list_count(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("count", arguments, {"value"}, 1);
  int64_t count = 0;
  for (const Value& item : self.items()) count += equals(interpreter, item, bound[0]);
  return Value(count);
}

Value list_index(Interpreter& interpreter, const Value& self, Arguments& arguments) {
  const Bound bound("index", arguments, {"value", "start", "stop"}, 1);
  const auto size = static_cast<int64_t>(self.items().size());
  const auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
  for (int64_t i = clamp(bound.integer(1, 0)); i < clamp(bound.integer(2, size)); ++i)
    if (equals(interpreter, self.items()[static_cast<size_t>(i)], bound[0])) return Value(i);
  raise("{} is not in {}", "value", type_name(self));
}

Value float_is_integer(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("is_integer", arguments, {});
  const double value = self.number();
  return Value(value - value == 0 && value == static_cast<double>(static_cast<long double>(__builtin_floor(value))));
}

Value cycler_next(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("next", arguments, {});
  auto& cycler = self.as<CyclerObject>();
  const Value item = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.items.size();
  return item;
}

Value cycler_reset(Interpreter&, const Value& self, Arguments& arguments) {
  const Bound bound("reset", arguments, {});
  self.as<CyclerObject>().position = 0;
  return Value();
}

struct NamedMethod {
  std::string_view name;
  Method method;
};
constexpr NamedMethod kDictMethods[] = {
    {"copy", dict_copy},
    {"get", dict_get},
    {"items", dict_view<ViewKind::kItems>},
    {"keys", dict_view<ViewKind::kKeys>},
    {"values", dict_view<ViewKind::kValues>},
};
constexpr NamedMethod kListMethods[] = {{"copy", list_copy}, {"count", list_count}, {"index", list_index}};
constexpr NamedMethod kTupleMethods[] = {{"count", list_count}, {"index", list_index}};
constexpr NamedMethod kFloatMethods[] = {{"is_integer", float_is_integer}};
constexpr NamedMethod kCyclerMethods[] = {{"next", cycler_next}, {"reset", cycler_reset}};

/// What changes a dict or list: the immutable sandbox refuses it.
constexpr std::string_view kDictUnsafe[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr std::string_view kListUnsafe[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort"};

template <typename Table>
Method look_up(const Table& table, std::string_view name) {
  for (const NamedMethod& entry : table)
    if (entry.name == name) return entry.method;
  return nullptr;
}

Value bind(Interpreter& interpreter, const Value& self, const std::string& name, Method method) {
  return make_callable(&interpreter.meter(), name, self, [self, method](Interpreter& caller, Arguments& arguments) {
    Value result = method(caller, self, arguments);
    // A method of safe text gives safe text.
    return result.is_string() && self.is_markup() ? caller.string(result.text(), Markup::kYes) : result;
  });
}

std::optional<Value> macro_attribute(Interpreter& interpreter, const Value& value, const std::string& name);

}  // namespace

std::optional<Value> find_method(Interpreter& interpreter, const Value& value, const std::string& name) {
  Method method = nullptr;
  switch (value.kind()) {
    case Kind::kString:
      method = find_string_method(name);
      if (method == nullptr) method = find_string_test_method(name);
      break;
    case Kind::kDict:
      if (is_one_of(kDictUnsafe, name)) return unsafe(interpreter, value, name);
      method = look_up(kDictMethods, name);
      break;
    case Kind::kList:
      if (is_one_of(kListUnsafe, name)) return unsafe(interpreter, value, name);
      method = look_up(kListMethods, name);
      break;
    case Kind::kTuple: {
      const auto& tuple = value.as<ListObject>();
      if (tuple.grouper_list && name == "grouper") return tuple.items[0];
      if (tuple.grouper_list && name == "list") return tuple.items[1];
      method = look_up(kTupleMethods, name);
      break;
    }
    case Kind::kFloat: method = look_up(kFloatMethods, name); break;
    case Kind::kCycler: {
      const auto& cycler = value.as<CyclerObject>();
      if (name == "current") return cycler.items[cycler.position];
      method = look_up(kCyclerMethods, name);
      break;
    }
    case Kind::kCallable:
      if (value.as<CallableObject>().macro != nullptr) return macro_attribute(interpreter, value, name);
      break;
    default: break;
  }
  if (method != nullptr) return bind(interpreter, value, name, method);
  if (name == "__class__" || name == "__init__" || name == "__dict__" || name == "__doc__" || name == "__len__")
    return unsafe(interpreter, value, name);
  return std::nullopt;
}

namespace {

std::optional<Value> macro_attribute(Interpreter& interpreter, const Value& value, const std::string& name) {
  const MacroNode& macro = *value.as<CallableObject>().macro;
  if (name == "name") return interpreter.string(macro.name);
  if (name == "catch_kwargs") return Value(macro.uses_kwargs);
  if (name == "catch_varargs") return Value(macro.uses_varargs);
  if (name == "caller") return Value(macro.uses_caller);
  if (name != "arguments") return std::nullopt;
  std::vector<Value> names;
  for (const auto& [parameter, id] : macro.parameters) names.push_back(interpreter.string(parameter));
  return interpreter.tuple(std::move(names));
}

}  // namespace

}  // namespace chorale::coordinator::jinja
