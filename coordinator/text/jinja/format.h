// Python's two ways to format: "%s" % x and "{}".format(x). Called by the operator %, the filter format and str.format.
#pragma once

#include <string>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

/// format % values, where values is one value, a tuple, or a dict for %(name)s.
Value format_percent(Interpreter& interpreter, const Value& format, const Value& values);
/// format.format(*args, **kwargs).
Value format_braces(Interpreter& interpreter, const Value& format, Arguments& arguments);
/// format(value, spec).
std::string format_value(Interpreter& interpreter, const Value& value, std::string_view spec);

}  // namespace chorale::coordinator::jinja
