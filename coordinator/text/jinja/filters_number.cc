// Filters that make or take numbers, and default.
#include <charconv>
#include <cmath>

#include "coordinator/text/jinja/arguments.h"
#include "coordinator/text/jinja/filters.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

std::string_view stripped(std::string_view text) { return strip_space_left(strip_space_right(text)); }

/// Removes the underscores that Python allows between digits; nothing where one stands elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto alnum = [&](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at]));
    };
    if (i == 0 || !alnum(i - 1) || !alnum(i + 1)) return std::nullopt;
  }
  return out;
}

/// int(text, base); nothing where Python raises ValueError.
std::optional<int64_t> parse_integer(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36)) return std::nullopt;
  auto digits = without_underscores(stripped(text));
  if (!digits || digits->empty()) return std::nullopt;
  bool is_negative = false;
  if ((*digits)[0] == '+' || (*digits)[0] == '-') {
    is_negative = (*digits)[0] == '-';
    digits->erase(0, 1);
  }
  if (digits->size() > 2 && (*digits)[0] == '0') {
    const char mark = static_cast<char>((*digits)[1] | 0x20);
    const int64_t marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == 0 || base == marked)) {
      digits->erase(0, 2);
      base = marked;
    }
  }
  if (digits->empty() || (*digits)[0] == '-' || (*digits)[0] == '+') return std::nullopt;
  uint64_t value = 0;
  const char* end = digits->data() + digits->size();
  const auto [stop, error] = std::from_chars(digits->data(), end, value, base == 0 ? 10 : static_cast<int>(base));
  if (stop != end || error == std::errc::invalid_argument) return std::nullopt;
  if (error != std::errc() || value > static_cast<uint64_t>(INT64_MAX))
    raise("integer overflow: {} does not fit 64 bits", stripped(text));
  return is_negative ? -static_cast<int64_t>(value) : static_cast<int64_t>(value);
}

/// float(text); nothing where Python raises ValueError.
std::optional<double> parse_float(std::string_view text) {
  const auto clean = without_underscores(stripped(text));
  if (!clean || clean->empty()) return std::nullopt;
  std::string lower = to_lower(*clean);
  const size_t begin = lower[0] == '+' || lower[0] == '-' ? 1 : 0;
  const double sign = lower[0] == '-' ? -1.0 : 1.0;
  const std::string_view body = std::string_view(lower).substr(begin);
  if (body == "inf" || body == "infinity") return sign * HUGE_VAL;
  if (body == "nan") return std::nan("");
  if (body.empty() || body.find_first_not_of("0123456789.e+-") != std::string_view::npos) return std::nullopt;
  char* end = nullptr;
  const std::string number(body);
  if (number[0] == '+' || number[0] == '-') return std::nullopt;
  const double value = std::strtod(number.c_str(), &end);
  if (end != number.c_str() + number.size()) return std::nullopt;
  return sign * value;
}

std::optional<int64_t> truncated(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::abs(value) >= 9.2e18) raise("integer overflow: {} does not fit 64 bits", float_text(value));
  return static_cast<int64_t>(value);
}

Value to_int(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("int", arguments, {"default", "base"});
  const Value otherwise = bound.has(0) ? bound[0] : Value(int64_t{0});
  if (input.is_undefined()) raise_undefined(input);
  if (input.is_integral()) return Value(input.integer());
  if (input.is(Kind::kFloat)) {
    if (std::isinf(input.number())) raise("cannot convert float infinity to integer");
    const auto value = truncated(input.number());
    return value ? Value(*value) : otherwise;
  }
  if (!input.is_string()) return otherwise;
  if (const auto value = parse_integer(input.text(), bound.integer(1, 10))) return Value(*value);
  if (const auto number = parse_float(input.text()))
    if (const auto value = truncated(*number)) return Value(*value);
  return otherwise;
}

Value to_float(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("float", arguments, {"default"});
  if (input.is_undefined()) raise_undefined(input);
  if (input.is_number()) return Value(input.number());
  if (input.is_string())
    if (const auto number = parse_float(input.text())) return Value(*number);
  return bound.has(0) ? bound[0] : Value(0.0);
}

Value absolute(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("abs", arguments, {});
  if (input.is_undefined()) raise_undefined(input);
  if (!input.is_number()) raise("bad operand type for abs(): '{}'", type_name(input));
  if (input.is(Kind::kFloat)) return Value(std::abs(input.number()));
  return input.integer() < 0 ? negative(input) : Value(input.integer());
}

/// Half to even on the exact binary value, as Python's round().
double round_common(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 330) return value;
  if (precision < 0) {
    if (precision < -330) return std::copysign(0.0, value);
    const long double scale = std::pow(10.0L, static_cast<long double>(-precision));
    return static_cast<double>(std::nearbyint(static_cast<long double>(value) / scale) * scale);
  }
  return std::strtod(fmt::format("{:.{}f}", value, precision).c_str(), nullptr);
}

Value round_integer(int64_t value, int64_t precision) {
  if (precision >= 0) return Value(value);
  if (precision < -18) return Value(int64_t{0});
  int64_t scale = 1;
  for (int64_t i = precision; i < 0; ++i) scale *= 10;
  int64_t low = value / scale;
  int64_t rest = value % scale;
  if (rest < 0) {
    rest += scale;
    --low;
  }
  const int64_t twice = rest > scale / 2 ? 1 : rest < scale / 2 ? -1 : 0;
  if (twice > 0 || (twice == 0 && (low & 1) != 0)) ++low;
  int64_t result = 0;
  if (__builtin_mul_overflow(low, scale, &result)) raise("integer overflow: the result does not fit 64 bits");
  return Value(result);
}

Value round(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("round", arguments, {"precision", "method"});
  if (input.is_undefined()) raise_undefined(input);
  if (!input.is_number()) raise("type {} doesn't define __round__ method", type_name(input));
  const int64_t precision = bound.integer(0, 0);
  const std::string method = bound.text(1, "common");
  if (method == "common")
    return input.is_integral() ? round_integer(input.integer(), precision)
                               : Value(round_common(input.number(), precision));
  if (method != "ceil" && method != "floor") raise("method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = input.number() * scale;
  if (!std::isfinite(scaled)) raise("cannot convert float infinity or NaN to integer");
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value default_value(Interpreter& interpreter, const Value& input, Arguments& arguments) {
  const Bound bound("default", arguments, {"default_value", "boolean"});
  const bool replaces = input.is_undefined() || (bound.truth(1, false) && !truthy(input));
  if (!replaces) return input;
  return bound.has(0) ? bound[0] : interpreter.string("");
}

constexpr Filter kFilters[] = {
    {"abs", absolute},   {"d", default_value}, {"default", default_value},
    {"float", to_float}, {"int", to_int},      {"round", round},
};

}  // namespace

std::span<const Filter> number_filters() { return kFilters; }

}  // namespace chorale::coordinator::jinja
