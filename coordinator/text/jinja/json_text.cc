// json.dumps over template values, as transformers' tojson filter calls it.
#include <algorithm>
#include <cmath>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/repr.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

void append_unit(std::string& out, uint32_t unit) { out += fmt::format("\\u{:04x}", unit); }

std::string json_string(std::string_view text, JsonStyle::Ascii ascii) {
  std::string out = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const auto c = static_cast<uint32_t>(next_char(text, at));
    switch (c) {
      case '"': out += "\\\""; continue;
      case '\f': out += "\\f"; continue;
      case '\b': out += "\\b"; continue;
      default: break;
    }
    if (const std::string_view escape = short_escape(c); !escape.empty()) {
      out += escape;
      continue;
    }
    if (c >= 0x20 && (c < 0x7f || ascii == JsonStyle::Ascii::kKeep)) {
      out += text.substr(begin, at - begin);
    } else if (c == 0x7f || c < 0x10000) {
      if (c == 0x7f)
        out += '\x7f';
      else
        append_unit(out, c);
    } else {
      append_unit(out, 0xd800 + ((c - 0x10000) >> 10));
      append_unit(out, 0xdc00 + ((c - 0x10000) & 0x3ff));
    }
  }
  return out + "\"";
}

std::string json_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return float_text(value);
}

class JsonPrinter {
 public:
  JsonPrinter(Interpreter& interpreter, const JsonStyle& style) : interpreter_(interpreter), style_(style) {}

  void print(const Value& value, int level) {
    const Meter::Level guard(interpreter_.meter());
    switch (value.kind()) {
      case Kind::kNone: return add("null");
      case Kind::kBool: return add(value.integer() != 0 ? "true" : "false");
      case Kind::kInt: return add(std::to_string(value.integer()));
      case Kind::kFloat: return add(json_float(value.number()));
      case Kind::kString: return add(json_string(value.text(), style_.ascii));
      case Kind::kList:
      case Kind::kTuple: return print_array(value.items(), level);
      case Kind::kDict: return print_object(value.dict(), level);
      default: raise("Object of type {} is not JSON serializable", type_name(value));
    }
  }
  std::string take() { return std::move(text_); }

 private:
  void add(std::string_view piece) {
    interpreter_.meter().step(1 + piece.size() / 64);
    interpreter_.meter().check_output(text_.size() + piece.size());
    text_ += piece;
  }
  void new_line(int level) {
    if (!style_.indent) return;
    add("\n");
    for (int i = 0; i < level; ++i) add(*style_.indent);
  }
  void print_array(const std::vector<Value>& items, int level) {
    if (items.empty()) return add("[]");
    add("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) add(style_.item_separator);
      new_line(level + 1);
      print(items[i], level + 1);
    }
    new_line(level);
    add("]");
  }
  void print_object(const DictObject& dict, int level) {
    if (dict.entries.empty()) return add("{}");
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries) entries.push_back(&entry);
    if (style_.keys == JsonStyle::Keys::kSorted)
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const auto* a, const auto* b) { return less(interpreter_, a->first, b->first); });
    add("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) add(style_.item_separator);
      new_line(level + 1);
      add(json_string(key_text(entries[i]->first), style_.ascii));
      add(style_.key_separator);
      print(entries[i]->second, level + 1);
    }
    new_line(level);
    add("}");
  }
  static std::string key_text(const Value& key) {
    switch (key.kind()) {
      case Kind::kString: return key.text();
      case Kind::kNone: return "null";
      case Kind::kBool: return key.integer() != 0 ? "true" : "false";
      case Kind::kInt: return std::to_string(key.integer());
      case Kind::kFloat: return json_float(key.number());
      default: raise("keys must be str, int, float, bool or None, not {}", type_name(key));
    }
  }

  Interpreter& interpreter_;
  const JsonStyle& style_;
  std::string text_;
};

}  // namespace

std::string json_text(Interpreter& interpreter, const Value& value, const JsonStyle& style) {
  JsonPrinter printer(interpreter, style);
  printer.print(value, 0);
  return printer.take();
}

}  // namespace chorale::coordinator::jinja
