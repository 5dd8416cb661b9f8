// "%s and %05.1f" % values.
#include <cmath>

#include "coordinator/text/jinja/format.h"
#include "coordinator/text/jinja/number_format.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

struct Directive {
  bool left = false, zero = false;
  NumberStyle style;
  std::optional<int> width;
};

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& interpreter, const std::string& format, const Value& values)
      : interpreter_(interpreter), format_(format), values_(values) {}

  std::string run() {
    while (at_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', at_), format_.size());
      add(format_.substr(at_, percent - at_));
      at_ = percent + 1;
      if (percent < format_.size()) add(directive());
    }
    const bool takes_all = values_.is(Kind::kDict) || used_mapping_;
    const bool has_more = values_.is(Kind::kTuple) ? position_ < values_.items().size() : position_ == 0;
    if (has_more && !takes_all && !(values_.is(Kind::kList)))
      raise("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  void add(const std::string& piece) {
    interpreter_.meter().step(1 + piece.size() / 64);
    interpreter_.meter().check_output(out_.size() + piece.size());
    out_ += piece;
  }
  Value next_value() {
    if (values_.is(Kind::kTuple)) {
      if (position_ >= values_.items().size()) raise("not enough arguments for format string");
      return values_.items()[position_++];
    }
    if (position_++ > 0) raise("not enough arguments for format string");
    return values_;
  }
  char peek() const {
    if (at_ >= format_.size()) raise("incomplete format");
    return format_[at_];
  }
  std::optional<int> size() {
    if (peek() != '*') return read_size(format_, at_);
    ++at_;
    const Value value = next_value();
    if (!value.is_integral()) raise("* wants int");
    if (value.integer() < 0 || value.integer() > 100'000) raise("a format's width is out of range");
    return static_cast<int>(value.integer());
  }

  std::string directive() {
    Directive d;
    std::optional<Value> mapped;
    if (peek() == '(') {
      const size_t close = format_.find(')', at_);
      if (close == std::string::npos) raise("incomplete format key");
      if (!values_.is(Kind::kDict)) raise("format requires a mapping");
      used_mapping_ = true;
      const std::string key = format_.substr(at_ + 1, close - at_ - 1);
      const Value* found = values_.dict().find(interpreter_, interpreter_.string(key));
      if (found == nullptr) raise("{}", quoted(key));
      mapped = *found;
      at_ = close + 1;
    }
    for (;; ++at_) {
      const char c = peek();
      if (c == '-')
        d.left = true;
      else if (c == '0')
        d.zero = true;
      else if (c == '+')
        d.style.sign = '+';
      else if (c == ' ')
        d.style.sign = d.style.sign == '+' ? '+' : ' ';
      else if (c == '#')
        d.style.alternate = true;
      else
        break;
    }
    d.width = size();
    if (peek() == '.') {
      ++at_;
      d.style.precision = size().value_or(0);
    }
    while (peek() == 'h' || peek() == 'l' || peek() == 'L') ++at_;
    d.style.type = format_[at_++];
    if (d.style.type == '%') return "%";
    return laid_out(d, mapped ? *mapped : next_value());
  }

  std::string laid_out(Directive d, const Value& value) {
    std::string text;
    bool is_number = true;
    switch (d.style.type) {
      case 's':
      case 'r':
      case 'a':
        is_number = false;
        text = d.style.type == 's' ? str(interpreter_, value) : repr(interpreter_, value);
        if (d.style.precision) text = text.substr(0, byte_offset(text, static_cast<size_t>(*d.style.precision)));
        break;
      case 'c':
        is_number = false;
        text = character(value);
        break;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o': text = integer(d.style, value); break;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (value.is_undefined()) raise_undefined(value);
        if (!value.is_number()) raise("must be real number, not {}", type_name(value));
        text = format_float(value.number(), d.style);
        break;
      default:
        raise("unsupported format character '{}' ({:#x}) at index {}", d.style.type, static_cast<int>(d.style.type),
              at_ - 1);
    }
    if (!d.width) return text;
    const char alignment = d.left ? '<' : d.zero && is_number ? '=' : '>';
    return align_text(text, alignment, alignment == '=' ? "0" : " ", static_cast<size_t>(*d.width));
  }

  std::string integer(NumberStyle style, const Value& value) {
    const char type = style.type;
    if (type == 'i' || type == 'u') style.type = 'd';
    if (value.is_undefined()) raise_undefined(value);
    if (value.is_integral()) return format_integer(value.integer(), style);
    if (!value.is(Kind::kFloat) || type == 'x' || type == 'X' || type == 'o')
      raise("%{} format: a real number is required, not {}", type, type_name(value));
    if (!std::isfinite(value.number())) raise("cannot convert float infinity or NaN to integer");
    if (std::abs(value.number()) > 9.2e18) raise("integer overflow: the value does not fit 64 bits");
    return format_integer(static_cast<int64_t>(value.number()), style);
  }

  std::string character(const Value& value) {
    if (value.is_string() && *length(value) == 1) return value.text();
    if (!value.is_integral()) raise("%c requires int or char");
    const int64_t code = value.integer();
    if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) raise("%c arg not in range(0x110000)");
    std::string out;
    append_char(out, static_cast<char32_t>(code));
    return out;
  }

  Interpreter& interpreter_;
  const std::string& format_;
  const Value& values_;
  size_t at_ = 0;
  size_t position_ = 0;
  bool used_mapping_ = false;
  std::string out_;
};

}  // namespace

Value format_percent(Interpreter& interpreter, const Value& format, const Value& values) {
  return interpreter.string(PercentFormatter(interpreter, format.text(), values).run(),
                            format.is_markup() ? Markup::kYes : Markup::kNo);
}

}  // namespace chorale::coordinator::jinja
