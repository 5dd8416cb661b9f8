#include "coordinator/text/jinja/tests.h"

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

/// A test of one value alone.
template <bool (*kHolds)(Interpreter&, const Value&)>
bool unary(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("test", arguments, {});
  return kHolds(interpreter, input);
}

template <CompareOp kOp>
bool relation(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("test", arguments, {"other"}, 1);
  return compare(interpreter, kOp, input, bound[0]);
}

template <Kind... kKinds>
bool is_kind(Interpreter&, const Value& value) {
  return (value.is(kKinds) || ...);
}

bool is_defined(Interpreter&, const Value& value) { return !value.is_undefined(); }
bool is_false(Interpreter&, const Value& value) { return value.is(Kind::kBool) && value.integer() == 0; }
bool is_true(Interpreter&, const Value& value) { return value.is(Kind::kBool) && value.integer() != 0; }
bool is_sequence(Interpreter&, const Value& value) {
  return value.is_string() || value.is_list_or_tuple() || value.is(Kind::kDict) || value.is(Kind::kRange) ||
         value.is_undefined();
}
bool is_iterable(Interpreter& interpreter, const Value& value) {
  return is_sequence(interpreter, value) || value.is(Kind::kView) || value.is(Kind::kIterator) || value.is(Kind::kLoop);
}
bool is_callable(Interpreter&, const Value& value) {
  return value.is(Kind::kCallable) || value.is(Kind::kLoop) || value.is_undefined();
}
bool is_lower_text(Interpreter& interpreter, const Value& value) { return is_lower(str(interpreter, value)); }
bool is_upper_text(Interpreter& interpreter, const Value& value) { return is_upper(str(interpreter, value)); }
bool is_escaped(Interpreter&, const Value& value) { return value.is_markup(); }
bool is_filter(Interpreter&, const Value& value) { return value.is_string() && find_filter(value.text()) != nullptr; }
bool is_test(Interpreter&, const Value& value) { return value.is_string() && find_test(value.text()) != nullptr; }

template <int kRest>
bool has_parity(Interpreter& interpreter, const Value& value) {
  const Value rest = arithmetic(interpreter, ExprKind::kModulo, value, Value(int64_t{2}));
  return equals(interpreter, rest, Value(int64_t{kRest}));
}

bool divisible_by(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("divisibleby", arguments, {"num"}, 1);
  return equals(interpreter, arithmetic(interpreter, ExprKind::kModulo, input, bound[0]), Value(int64_t{0}));
}

bool same_as(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("sameas", arguments, {"other"}, 1);
  if (input.kind() != bound[0].kind()) return false;
  if (input.object() != nullptr || bound[0].object() != nullptr) {
    // Python shares equal short strings of a template, so that equal text is most often the same object.
    return input.object() == bound[0].object() || (input.is_string() && input.text() == bound[0].text());
  }
  return equals(interpreter, input, bound[0]);
}

bool in(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("in", arguments, {"seq"}, 1);
  return contains(interpreter, bound[0], input);
}

constexpr Test kTests[] = {
    {"boolean", unary<is_kind<Kind::kBool>>},
    {"callable", unary<is_callable>},
    {"defined", unary<is_defined>},
    {"divisibleby", divisible_by},
    {"escaped", unary<is_escaped>},
    {"even", unary<has_parity<0>>},
    {"false", unary<is_false>},
    {"filter", unary<is_filter>},
    {"float", unary<is_kind<Kind::kFloat>>},
    {"in", in},
    {"integer", unary<is_kind<Kind::kInt>>},
    {"iterable", unary<is_iterable>},
    {"lower", unary<is_lower_text>},
    {"mapping", unary<is_kind<Kind::kDict>>},
    {"none", unary<is_kind<Kind::kNone>>},
    {"number", unary<is_kind<Kind::kInt, Kind::kBool, Kind::kFloat>>},
    {"odd", unary<has_parity<1>>},
    {"sameas", same_as},
    {"sequence", unary<is_sequence>},
    {"string", unary<is_kind<Kind::kString>>},
    {"test", unary<is_test>},
    {"true", unary<is_true>},
    {"undefined", unary<is_kind<Kind::kUndefined>>},
    {"upper", unary<is_upper_text>},
    {"eq", relation<CompareOp::kEq>},
    {"equalto", relation<CompareOp::kEq>},
    {"==", relation<CompareOp::kEq>},
    {"ne", relation<CompareOp::kNe>},
    {"!=", relation<CompareOp::kNe>},
    {"gt", relation<CompareOp::kGt>},
    {"greaterthan", relation<CompareOp::kGt>},
    {">", relation<CompareOp::kGt>},
    {"ge", relation<CompareOp::kGe>},
    {">=", relation<CompareOp::kGe>},
    {"lt", relation<CompareOp::kLt>},
    {"lessthan", relation<CompareOp::kLt>},
    {"<", relation<CompareOp::kLt>},
    {"le", relation<CompareOp::kLe>},
    {"<=", relation<CompareOp::kLe>},
};

}  // namespace

const Test* find_test(std::string_view name) {
  for (const Test& test : kTests)
    if (test.name == name) return &test;
  return nullptr;
}

}  // namespace chorale::coordinator::jinja
