// The escapes of a string literal: Python's unicode-escape codec. Used by the lexer.
#pragma once

#include <string>
#include <string_view>

namespace chorale::coordinator::jinja {

/// The text between the quotes with its escapes resolved. Throws TemplateError for an escape that is cut short or no
/// character.
std::string unescape(std::string_view literal, int line);

}  // namespace chorale::coordinator::jinja
