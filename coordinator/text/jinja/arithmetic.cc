// + - * / // % ** and the signs, with Python's results; integers are 64 bits and overflow is an error.
#include <cmath>

#include "coordinator/text/jinja/format.h"
#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"

namespace chorale::coordinator::jinja {
namespace {

[[noreturn]] void overflow() { raise("integer overflow: the result does not fit 64 bits"); }

std::string_view symbol_of(ExprKind op) {
  switch (op) {
    case ExprKind::kAdd: return "+";
    case ExprKind::kSubtract: return "-";
    case ExprKind::kMultiply: return "*";
    case ExprKind::kDivide: return "/";
    case ExprKind::kFloorDivide: return "//";
    case ExprKind::kModulo: return "%";
    default: return "** or pow()";
  }
}

int64_t floor_divide(int64_t a, int64_t b) {
  if (a == INT64_MIN && b == -1) overflow();
  const int64_t quotient = a / b;
  return (a % b != 0 && (a < 0) != (b < 0)) ? quotient - 1 : quotient;
}

int64_t floor_modulo(int64_t a, int64_t b) {
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

int64_t integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) overflow();
    exponent >>= 1;
    if (exponent == 0) return result;
    if (__builtin_mul_overflow(base, base, &base)) overflow();
  }
}

Value integer_arithmetic(ExprKind op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case ExprKind::kAdd:
      if (__builtin_add_overflow(a, b, &result)) overflow();
      return Value(result);
    case ExprKind::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) overflow();
      return Value(result);
    case ExprKind::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) overflow();
      return Value(result);
    case ExprKind::kDivide:
      if (b == 0) raise("division by zero");
      return Value(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case ExprKind::kFloorDivide:
      if (b == 0) raise("integer division or modulo by zero");
      return Value(floor_divide(a, b));
    case ExprKind::kModulo:
      if (b == 0) raise("integer modulo by zero");
      return Value(floor_modulo(a, b));
    default:
      if (b >= 0) return Value(integer_power(a, b));
      if (a == 0) raise("0.0 cannot be raised to a negative power");
      return Value(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
}

double float_modulo(double a, double b) {
  double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

double float_floor_divide(double a, double b) {
  const double rest = float_modulo(a, b);
  const double quotient = (a - rest) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Value float_arithmetic(ExprKind op, double a, double b) {
  switch (op) {
    case ExprKind::kAdd: return Value(a + b);
    case ExprKind::kSubtract: return Value(a - b);
    case ExprKind::kMultiply: return Value(a * b);
    case ExprKind::kDivide:
      if (b == 0) raise("float division by zero");
      return Value(a / b);
    case ExprKind::kFloorDivide:
      if (b == 0) raise("float floor division by zero");
      return Value(float_floor_divide(a, b));
    case ExprKind::kModulo:
      if (b == 0) raise("float modulo");
      return Value(float_modulo(a, b));
    default: {
      if (a == 0 && b < 0) raise("0.0 cannot be raised to a negative power");
      if (a < 0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b))
        raise("complex numbers are not supported: {} ** {}", float_text(a), float_text(b));
      const double result = std::pow(a, b);
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) raise("(34, 'Numerical result out of range')");
      return Value(result);
    }
  }
}

Value add_strings(Interpreter& interpreter, const Value& a, const Value& b) {
  if (!a.is_markup() && !b.is_markup()) return interpreter.string(a.text() + b.text());
  const auto safe = [](const Value& v) { return v.is_markup() ? v.text() : escape_html(v.text()); };
  return interpreter.string(safe(a) + safe(b), Markup::kYes);
}

Value add_lists(Interpreter& interpreter, const Value& a, const Value& b) {
  std::vector<Value> items = a.items();
  interpreter.meter().step(items.size() + b.items().size());
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is(Kind::kList) ? interpreter.list(std::move(items)) : interpreter.tuple(std::move(items));
}

/// A string, list or tuple `times` over.
Value repeat(Interpreter& interpreter, const Value& what, int64_t times) {
  const uint64_t count = times > 0 ? static_cast<uint64_t>(times) : 0;
  const uint64_t unit = what.is_string() ? what.text().size() : what.items().size() * sizeof(Value);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(unit, count, &bytes)) bytes = UINT64_MAX / 2;
  interpreter.meter().charge(bytes);  // refused before it is made
  interpreter.meter().refund(bytes);
  if (what.is_string()) {
    std::string text;
    text.reserve(bytes);
    for (uint64_t i = 0; i < count && unit > 0; ++i) text += what.text();
    return interpreter.string(std::move(text), what.is_markup() ? Markup::kYes : Markup::kNo);
  }
  std::vector<Value> items;
  items.reserve(unit * count / sizeof(Value));
  for (uint64_t i = 0; i < count && unit > 0; ++i) items.insert(items.end(), what.items().begin(), what.items().end());
  return what.is(Kind::kList) ? interpreter.list(std::move(items)) : interpreter.tuple(std::move(items));
}

}  // namespace

Value arithmetic(Interpreter& interpreter, ExprKind op, const Value& a, const Value& b) {
  if (op == ExprKind::kModulo && a.is_string()) return format_percent(interpreter, a, b);
  if (a.is_undefined()) raise_undefined(a);
  if (b.is_undefined()) raise_undefined(b);
  if (a.is_integral() && b.is_integral()) return integer_arithmetic(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return float_arithmetic(op, a.number(), b.number());
  const auto sequence = [](const Value& v) { return v.is_string() || v.is_list_or_tuple(); };
  if (op == ExprKind::kAdd && a.is_string()) {
    if (b.is_string()) return add_strings(interpreter, a, b);
    raise("can only concatenate str (not \"{}\") to str", type_name(b));
  }
  if (op == ExprKind::kAdd && a.is_list_or_tuple()) {
    if (a.kind() == b.kind()) return add_lists(interpreter, a, b);
    raise("can only concatenate {} (not \"{}\") to {}", type_name(a), type_name(b), type_name(a));
  }
  if (op == ExprKind::kMultiply && sequence(a)) {
    if (b.is_integral()) return repeat(interpreter, a, b.integer());
    raise("can't multiply sequence by non-int of type '{}'", type_name(b));
  }
  if (op == ExprKind::kMultiply && sequence(b) && a.is_integral()) return repeat(interpreter, b, a.integer());
  raise("unsupported operand type(s) for {}: '{}' and '{}'", symbol_of(op), type_name(a), type_name(b));
}

Value negative(const Value& value) {
  if (value.is_undefined()) raise_undefined(value);
  if (value.is(Kind::kFloat)) return Value(-value.number());
  if (!value.is_integral()) raise("bad operand type for unary -: '{}'", type_name(value));
  if (value.integer() == INT64_MIN) overflow();
  return Value(-value.integer());
}

Value positive(const Value& value) {
  if (value.is_undefined()) raise_undefined(value);
  if (!value.is_number()) raise("bad operand type for unary +: '{}'", type_name(value));
  return value.is(Kind::kFloat) ? value : Value(value.integer());
}

}  // namespace chorale::coordinator::jinja
