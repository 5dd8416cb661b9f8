// The attribute arguments of map, sort, sum, ...: "a.b.0", or a number. Used by the sequence and selection filters.
#pragma once

#include <vector>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/operators.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {

enum class CaseSensitive : uint8_t { kNo, kYes };

/// Finds item[a][b][0] for the path "a.b.0"; None is the item itself.
class AttributePath {
 public:
  AttributePath(Interpreter& interpreter, const Value& attribute) {
    if (attribute.is_none()) return;
    if (!attribute.is_string()) {
      parts_.push_back(attribute);
      return;
    }
    const std::string& path = attribute.text();
    for (size_t begin = 0; begin <= path.size();) {
      const size_t end = std::min(path.find('.', begin), path.size());
      const std::string part = path.substr(begin, end - begin);
      const bool is_index =
          !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == std::string::npos;
      parts_.push_back(is_index ? Value(int64_t{std::stoll(part)}) : interpreter.string(part));
      begin = end + 1;
    }
  }
  /// `otherwise` stands for what is undefined on the way, unless it is None.
  Value get(Interpreter& interpreter, Value item, const Value& otherwise = Value()) const {
    for (const Value& part : parts_) {
      item = get_item(interpreter, item, part);
      if (!otherwise.is_none() && item.is_undefined()) item = otherwise;
    }
    return item;
  }

 private:
  std::vector<Value> parts_;
};

/// What two items are compared by.
inline Value compare_key(Interpreter& interpreter, const Value& value, CaseSensitive sensitive) {
  return value.is_string() && sensitive == CaseSensitive::kNo ? interpreter.string(to_lower(value.text())) : value;
}

}  // namespace chorale::coordinator::jinja
