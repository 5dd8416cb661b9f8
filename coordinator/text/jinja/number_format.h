// Numbers and text laid out by a width, a precision and a type letter. Shared by "%5.1f" % x and "{:>5.1f}".format(x).
#pragma once

#include <optional>
#include <string>

#include "coordinator/text/jinja/interpreter.h"
#include "coordinator/text/jinja/value.h"

namespace chorale::coordinator::jinja {

struct NumberStyle {
  char type = 'd';         // d x X o b e E f F g G %
  char sign = '-';         // '-' only for negatives, '+' always, ' ' a space for positives
  bool alternate = false;  // #: 0x in front
  char grouping = '\0';    // ',' or '_' between thousands
  std::optional<int> precision;
};

/// The digits with their sign first: "-12", "+0x1f", "1,234.5".
std::string format_integer(int64_t value, const NumberStyle& style);
std::string format_float(double value, const NumberStyle& style);

/// `text` in `width` characters. '=' pads after the sign.
std::string align_text(const std::string& text, char alignment, const std::string& fill, size_t width);

/// Reads digits at `at`; throws where the number is above what output may hold.
std::optional<int> read_size(std::string_view text, size_t& at);

}  // namespace chorale::coordinator::jinja
