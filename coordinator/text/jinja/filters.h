// The table of filters. The parser looks names up, the interpreter calls them. To add one: a function and a line in the
// table of filters_text.cc, filters_number.cc or filters_sequence.cc.
#pragma once

#include <span>
#include <string_view>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(Interpreter& interpreter, const Value& input, Arguments& arguments);
};

const Filter* find_filter(std::string_view name);

std::span<const Filter> text_filters();
std::span<const Filter> number_filters();
std::span<const Filter> sequence_filters();
std::span<const Filter> selection_filters();

}  // namespace chorale::coordinator::jinja
