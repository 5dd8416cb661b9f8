// UTF-8 and Unicode properties for the tokenizers, on top of ICU. Strings between tokenizer parts are always valid
// UTF-8; only to_valid_utf8() and Utf8Repair accept other bytes.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace chorale::coordinator::text {

/// The character at `offset` of valid UTF-8; moves `offset` behind it. REQUIRES: offset < text.size().
char32_t next_char(std::string_view text, size_t& offset);
/// The character that ends at `offset`; moves `offset` before it. REQUIRES: offset > 0.
char32_t previous_char(std::string_view text, size_t& offset);
void append_utf8(std::string& out, char32_t c);
/// Bytes of the character with this first byte.
size_t utf8_length(char first);
bool is_valid_utf8(std::string_view bytes);
/// Each maximal invalid part becomes one U+FFFD (Unicode standard, 3.9, "substitution of maximal subparts").
std::string to_valid_utf8(std::string_view bytes);

/// The same for bytes that arrive in parts: an unfinished character at the end is held for the next part.
class Utf8Repair {
 public:
  void push(std::string_view bytes, std::string& out);
  void finish(std::string& out);

 private:
  std::string held_;  // at most 3 bytes: a proper prefix of a character
};

bool is_white_space(char32_t c);  // White_Space
bool is_number(char32_t c);       // general categories Nd, Nl, No
bool is_word(char32_t c);         // \w of UTS 18: Alphabetic, M*, Nd, Pc, Join_Control
// The reference library's tables of these are as old as Unicode 8 and 9, and ids depend on them.
bool is_punctuation(char32_t c);      // P*
bool is_mark(char32_t c);             // M*
bool is_nonspacing_mark(char32_t c);  // Mn
bool is_other(char32_t c);            // Cc, Cf, Co

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
std::string normalize(std::string_view text, NormalForm form);
/// Character by character, without context (no final sigma), as Rust's char::to_lowercase.
std::string to_lower(std::string_view text);

}  // namespace chorale::coordinator::text
