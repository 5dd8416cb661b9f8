#include "coordinator/text/jinja/repr.h"

#include <charconv>
#include <cmath>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/loop.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

/// Grows one text for a whole tree of values and stops where it gets too long.
class Printer {
 public:
  explicit Printer(Interpreter& interpreter) : interpreter_(interpreter) {}

  void print(const Value& value) {
    const Meter::Level level(interpreter_.meter());
    switch (value.kind()) {
      case Kind::kUndefined: return add("Undefined");
      case Kind::kNone: return add("None");
      case Kind::kBool: return add(value.integer() != 0 ? "True" : "False");
      case Kind::kInt: return add(std::to_string(value.integer()));
      case Kind::kFloat: return add(float_text(value.number()));
      case Kind::kString: return add(value.is_markup() ? "Markup(" + quoted(value.text()) + ")" : quoted(value.text()));
      case Kind::kList: return print_items("[", value.items(), "]");
      case Kind::kTuple: return print_items("(", value.items(), value.items().size() == 1 ? ",)" : ")");
      case Kind::kDict: return print_dict(value.dict());
      case Kind::kNamespace: return print_namespace(value.as<NamespaceObject>());
      case Kind::kRange: return print_range(value.as<RangeObject>());
      case Kind::kView: add(type_name(value)); return print_items("([", to_vector(interpreter_, value), "])");
      case Kind::kLoop: {
        auto& loop = value.as<LoopObject>();
        return add(fmt::format("<LoopContext {}/{}>", loop.index0 + 1, loop.count_items(interpreter_)));
      }
      case Kind::kCallable: {
        const auto& callable = value.as<CallableObject>();
        return add(fmt::format("<{} '{}'>", callable.macro != nullptr ? "Macro" : "function", callable.name));
      }
      default: return add(fmt::format("<{} object>", type_name(value)));
    }
  }
  std::string take() { return std::move(text_); }

 private:
  void add(std::string_view piece) {
    interpreter_.meter().step(1 + piece.size() / 64);
    interpreter_.meter().check_output(text_.size() + piece.size());
    text_ += piece;
  }
  void print_items(std::string_view open, const std::vector<Value>& items, std::string_view close) {
    add(open);
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) add(", ");
      print(items[i]);
    }
    add(close);
  }
  void print_dict(const DictObject& dict) {
    add("{");
    for (size_t i = 0; i < dict.entries.size(); ++i) {
      if (i > 0) add(", ");
      print(dict.entries[i].first);
      add(": ");
      print(dict.entries[i].second);
    }
    add("}");
  }
  void print_namespace(const NamespaceObject& names) {
    add("<Namespace {");
    for (size_t i = 0; i < names.attributes.size(); ++i) {
      if (i > 0) add(", ");
      add(quoted(names.attributes[i].first));
      add(": ");
      print(names.attributes[i].second);
    }
    add("}>");
  }
  void print_range(const RangeObject& range) {
    if (range.step == 1) return add(fmt::format("range({}, {})", range.start, range.stop));
    add(fmt::format("range({}, {}, {})", range.start, range.stop, range.step));
  }

  Interpreter& interpreter_;
  std::string text_;
};

}  // namespace

std::string str(Interpreter& interpreter, const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return {};
  Printer printer(interpreter);
  printer.print(value);
  return printer.take();
}

std::string repr(Interpreter& interpreter, const Value& value) {
  Printer printer(interpreter);
  printer.print(value);
  return printer.take();
}

std::string_view short_escape(char32_t c) {
  switch (c) {
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    default: return "";
  }
}

std::string quoted(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_char(text, at);
    if (c == static_cast<char32_t>(quote)) {
      out += '\\';
      out += quote;
    } else if (const std::string_view escape = short_escape(c); !escape.empty()) {
      out += escape;
    } else if (is_printable(c)) {
      out += text.substr(begin, at - begin);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<uint32_t>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<uint32_t>(c));
    }
  }
  return out + quote;
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, std::abs(value), std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  std::string digits(shortest.substr(0, e));
  if (digits.size() > 1) digits.erase(1, 1);  // the point
  const int exponent = std::stoi(std::string(shortest.substr(e + 1)));
  const std::string sign = std::signbit(value) ? "-" : "";
  const int num_digits = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    std::string mantissa = digits.substr(0, 1);
    if (num_digits > 1) mantissa += "." + digits.substr(1);
    return fmt::format("{}{}e{}{:02}", sign, mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (num_digits <= exponent + 1)
    return sign + digits + std::string(static_cast<size_t>(exponent + 1 - num_digits), '0') + ".0";
  return sign + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
         digits.substr(static_cast<size_t>(exponent) + 1);
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

}  // namespace chorale::coordinator::jinja
