// Attributes that Python's own types have: str.strip, dict.items, list.index, Macro.name. Called by attribute access.
#pragma once

#include <optional>
#include <string>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

/// A bound method (or an undefined value that explains the sandbox's refusal); nothing where the type has no such
/// attribute.
std::optional<Value> find_method(Interpreter& interpreter, const Value& value, const std::string& name);

/// One method of str, named by the table in methods_string.cc.
using Method = Value (*)(Interpreter& interpreter, const Value& self, Arguments& arguments);
Method find_string_method(std::string_view name);
Method find_string_test_method(std::string_view name);

}  // namespace chorale::coordinator::jinja
