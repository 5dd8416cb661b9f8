// Text as Python sees it: code points, Unicode case and character classes, over UTF-8 strings. Used by the template
// engine.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace chorale::coordinator::jinja {

/// False where `text` is not well-formed UTF-8 (surrogates and overlong forms included).
bool is_utf8(std::string_view text);
size_t count_chars(std::string_view text);
/// Byte offset of the code point number `chars`, at most text.size().
size_t byte_offset(std::string_view text, size_t chars);
/// Decodes one code point at `at` and moves past it. `text` is well-formed.
char32_t next_char(std::string_view text, size_t& at);
/// Decodes the code point that ends before `end` and moves `end` to its start.
char32_t previous_char(std::string_view text, size_t& end);
void append_char(std::string& out, char32_t c);
std::u32string decode(std::string_view text);
std::string encode(std::u32string_view text);

std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);
std::string to_casefold(std::string_view text);
std::string to_title(std::string_view text);    // every run of cased letters, str.title()
std::string to_capital(std::string_view text);  // str.capitalize()
std::string swap_case(std::string_view text);

bool is_space(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_word(char32_t c);  // regex \w
bool is_printable(char32_t c);
bool is_identifier_start(char32_t c);
bool is_identifier_part(char32_t c);
/// str.isupper / islower: at least one cased character and none of the other case.
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);
bool is_title(std::string_view text);

/// Python's str.splitlines().
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

std::string_view strip_space_left(std::string_view text);
std::string_view strip_space_right(std::string_view text);

}  // namespace chorale::coordinator::jinja
