// map, select, reject, selectattr, rejectattr and attr. All but attr give iterators that work item by item, as Jinja's
// do.
#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/attribute_path.h"
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/methods.h"
#include "coordinator/text/jinja/tests.h"

namespace chorale::coordinator::jinja {
namespace {

/// What an iterator holds: its input and arguments.
Value held(Interpreter& interpreter, const Value& input, const Arguments& arguments) {
  std::vector<Value> all = arguments.positional;
  all.push_back(input);
  for (const auto& [name, value] : arguments.named) all.push_back(value);
  return interpreter.tuple(std::move(all));
}

/// iterate(), but looked at only once the first item is asked for: an error in a generator arises where it is used.
Cursor lazily(Interpreter& interpreter, const Value& input) {
  return [self = &interpreter, input, cursor = Cursor()](Value& out) mutable {
    if (!cursor) cursor = truthy(input) ? iterate(*self, input) : Cursor([](Value&) { return false; });
    return cursor(out);
  };
}

using Transform = std::function<Value(Interpreter&, const Value&)>;

Value mapped(Interpreter& interpreter, const Value& input, const Arguments& arguments, Transform transform) {
  const Value source = held(interpreter, input, arguments);
  return make_iterator(
      &interpreter.meter(), "generator", source,
      [self = &interpreter, cursor = lazily(interpreter, input), transform = std::move(transform)](Value& out) {
        Value item;
        if (!cursor(item)) return false;
        out = transform(*self, item);
        return true;
      });
}

Value map(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  if (arguments.positional.empty()) {
    const Bound bound("map", arguments, {"attribute", "default"});
    if (!bound.has(0)) raise("map requires a filter argument");
    return mapped(interpreter, input, arguments,
                  [path = AttributePath(interpreter, bound[0]), otherwise = bound[1]](
                      Interpreter& self, const Value& item) { return path.get(self, item, otherwise); });
  }
  if (!arguments.positional[0].is_string()) raise("map: the name of a filter must be a string");
  Arguments rest{{arguments.positional.begin() + 1, arguments.positional.end()}, arguments.named};
  return mapped(interpreter, input, arguments,
                [name = arguments.positional[0].text(), rest](Interpreter& self, const Value& item) {
                  Arguments own = rest;
                  return self.call_filter(name, item, own);
                });
}

enum class Looks : uint8_t { kAtItem, kAtAttribute };
enum class Keeps : uint8_t { kWhatHolds, kWhatFails };

template <Looks kLooks, Keeps kKeeps>
Value select(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const size_t num_own = kLooks == Looks::kAtAttribute ? 1 : 0;
  if (arguments.positional.size() < num_own) raise("Missing parameter for attribute name");
  const AttributePath path(interpreter, num_own == 1 ? arguments.positional[0] : Value());
  std::string test;  // empty: truth
  if (arguments.positional.size() > num_own) {
    if (!arguments.positional[num_own].is_string()) raise("the name of a test must be a string");
    test = arguments.positional[num_own].text();
  }
  Arguments rest;
  if (!test.empty())
    rest = {{arguments.positional.begin() + static_cast<ptrdiff_t>(num_own) + 1, arguments.positional.end()},
            arguments.named};
  const Value source = held(interpreter, input, arguments);
  return make_iterator(&interpreter.meter(), "generator", source,
                       [self = &interpreter, cursor = lazily(interpreter, input), path, test, rest](Value& out) {
                         for (Value item; cursor(item);) {
                           const Value seen = path.get(*self, item);
                           Arguments own = rest;
                           const bool holds = test.empty() ? truthy(seen) : self->call_test(test, seen, own);
                           if (holds != (kKeeps == Keeps::kWhatHolds)) continue;
                           out = std::move(item);
                           return true;
                         }
                         return false;
                       });
}

/// value.name without the fall-back to value["name"].
Value attribute(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("attr", arguments, {"name"}, 1);
  if (input.is(Kind::kDict)) {
    if (auto method = find_method(interpreter, input, bound.text(0))) return *method;
    return interpreter.undefined(fmt::format("'dict object' has no attribute '{}'", bound.text(0)));
  }
  return get_attribute(interpreter, input, bound.text(0));
}

constexpr Filter kFilters[] = {
    {"attr", attribute},
    {"map", map},
    {"reject", select<Looks::kAtItem, Keeps::kWhatFails>},
    {"rejectattr", select<Looks::kAtAttribute, Keeps::kWhatFails>},
    {"select", select<Looks::kAtItem, Keeps::kWhatHolds>},
    {"selectattr", select<Looks::kAtAttribute, Keeps::kWhatHolds>},
};

}  // namespace

std::span<const Filter> selection_filters() { return kFilters; }

}  // namespace chorale::coordinator::jinja
