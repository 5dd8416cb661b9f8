// Python's operators over template values: truth, equality, order, arithmetic, membership, items, slices, iteration.
// Called by the interpreter, the filters and the tests. Raises TemplateError with Python's wording where types do not
// fit.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "coordinator/text/jinja/ast.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

bool truthy(const Value& value);
bool equals(Interpreter& interpreter, const Value& a, const Value& b);
/// a < b; `symbol` is what the message shows.
bool less(Interpreter& interpreter, const Value& a, const Value& b, std::string_view symbol = "<");
bool compare(Interpreter& interpreter, CompareOp op, const Value& a, const Value& b);
bool contains(Interpreter& interpreter, const Value& container, const Value& item);

Value arithmetic(Interpreter& interpreter, ExprKind op, const Value& a, const Value& b);
Value negative(const Value& value);
Value positive(const Value& value);

/// value[key] and value.name as Jinja does them: an undefined value where there is none.
Value get_item(Interpreter& interpreter, const Value& value, const Value& key);
Value get_attribute(Interpreter& interpreter, const Value& value, const std::string& name);
/// value[start:stop:step]; None where left out.
Value get_slice(Interpreter& interpreter, const Value& value, const Value& start, const Value& stop, const Value& step);

/// iter(value). Strings give code points, dicts keys, undefined nothing.
Cursor iterate(Interpreter& interpreter, const Value& value);
std::vector<Value> to_vector(Interpreter& interpreter, const Value& value);
/// len(value), nullopt where Python has none.
std::optional<int64_t> length(const Value& value);
/// reversed(value); throws where Python does.
Value reversed(Interpreter& interpreter, const Value& value);

/// The code point at `index` of a string, as a string.
Value char_at(Interpreter& interpreter, const Value& text, size_t index);

}  // namespace chorale::coordinator::jinja
