// The functions that every template has: range, dict, namespace, cycler, joiner, raise_exception, strftime_now.
#pragma once

#include <optional>
#include <string>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

std::optional<Value> find_global(Interpreter& interpreter, const std::string& name);

}  // namespace chorale::coordinator::jinja
