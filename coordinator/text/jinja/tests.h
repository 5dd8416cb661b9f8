// The table of tests (`value is name`). The parser looks names up, the interpreter and the select filters call them.
#pragma once

#include <string_view>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

struct Test {
  std::string_view name;
  bool (*holds)(Interpreter& interpreter, const Value& input, Arguments& arguments);
};

const Test* find_test(std::string_view name);

}  // namespace chorale::coordinator::jinja
