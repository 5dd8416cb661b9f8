#include "coordinator/text/jinja/globals.h"

#include <ctime>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"

namespace chorale::coordinator::jinja {
namespace {

Value make_range(Interpreter& interpreter, Arguments& arguments) {
  if (!arguments.named.empty()) raise("range() takes no keyword arguments");
  const auto& given = arguments.positional;
  if (given.empty() || given.size() > 3) raise("range expected 1 to 3 arguments, got {}", given.size());
  for (const Value& value : given) {
    if (value.is_undefined()) raise_undefined(value);
    if (!value.is_integral()) raise("'{}' object cannot be interpreted as an integer", type_name(value));
  }
  const int64_t start = given.size() == 1 ? 0 : given[0].integer();
  const int64_t stop = given[given.size() == 1 ? 0 : 1].integer();
  const int64_t step = given.size() == 3 ? given[2].integer() : 1;
  if (step == 0) raise("range() arg 3 must not be zero");
  return Value(Kind::kRange, std::make_shared<RangeObject>(&interpreter.meter(), start, stop, step));
}

/// dict(mapping or pairs, **named), as both dict and namespace take their arguments.
std::shared_ptr<DictObject> dict_of(Interpreter& interpreter, Arguments& arguments) {
  auto dict = std::make_shared<DictObject>(&interpreter.meter());
  if (arguments.positional.size() > 1) raise("dict expected at most 1 argument, got {}", arguments.positional.size());
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      for (const auto& [key, value] : source.dict().entries) dict->set(interpreter, key, value);
    } else {
      const Cursor cursor = iterate(interpreter, source);
      for (Value pair; cursor(pair);) {
        const std::vector<Value> both = to_vector(interpreter, pair);
        if (both.size() != 2)
          raise("dictionary update sequence element #{} has length {}; 2 is required", dict->entries.size(),
                both.size());
        dict->set(interpreter, both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : arguments.named) dict->set(interpreter, interpreter.string(name), value);
  return dict;
}

Value make_dict(Interpreter& interpreter, Arguments& arguments) {
  return Value(Kind::kDict, dict_of(interpreter, arguments));
}

Value make_namespace(Interpreter& interpreter, Arguments& arguments) {
  const auto dict = dict_of(interpreter, arguments);
  Value result = interpreter.make_namespace();
  for (const auto& [key, value] : dict->entries) {
    if (!key.is_string()) raise("the names of a namespace must be strings");
    result.as<NamespaceObject>().set(interpreter, key.text(), value);
  }
  return result;
}

Value make_cycler(Interpreter& interpreter, Arguments& arguments) {
  if (arguments.positional.empty()) raise("at least one item has to be provided");
  return Value(Kind::kCycler, std::make_shared<CyclerObject>(&interpreter.meter(), arguments.positional));
}

Value make_joiner(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("joiner", arguments, {"sep"});
  const Value separator = bound.has(0) ? bound[0] : interpreter.string(", ");
  return make_callable(&interpreter.meter(), "joiner", separator,
                       [separator, used = false](Interpreter& self, Arguments&) mutable {
                         return std::exchange(used, true) ? separator : self.string("");
                       });
}

Value raise_exception(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("raise_exception", arguments, {"message"}, 1);
  throw TemplateError(TemplateError::Kind::kRaised, str(interpreter, bound[0]));
}

Value strftime_now(Interpreter& interpreter, Arguments& arguments) {
  const Bound bound("strftime_now", arguments, {"format"}, 1);
  const std::string& format = bound.text(0);
  if (format.size() > 1000) raise("strftime_now: the format has {} bytes, at most 1000 are read", format.size());
  if (format.empty()) return interpreter.string("");
  const std::tm now = interpreter.now();
  // strftime answers 0 both for too little room and for an empty result; a mark in front tells them apart.
  std::string text(64 * format.size() + 64, '\0');
  text.resize(std::strftime(text.data(), text.size(), ("|" + format).c_str(), &now));
  if (text.empty()) raise("strftime_now: the result of the format {} is too long", quoted(format));
  return interpreter.string(text.substr(1));
}

using GlobalFunction = Value (*)(Interpreter&, Arguments&);
constexpr std::pair<std::string_view, GlobalFunction> kGlobals[] = {
    {"range", make_range},          {"dict", make_dict},     {"namespace", make_namespace},
    {"cycler", make_cycler},        {"joiner", make_joiner}, {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
};

}  // namespace

std::optional<Value> find_global(Interpreter& interpreter, const std::string& name) {
  for (const auto& [global, function] : kGlobals)
    if (global == name) return make_callable(&interpreter.meter(), name, Value(), function);
  return std::nullopt;
}

}  // namespace chorale::coordinator::jinja
