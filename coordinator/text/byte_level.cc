#include "coordinator/text/byte_level.h"

#include <array>
#include <cstdint>

#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

constexpr int kAlphabetEnd = 0x144;  // one more than the largest character used

struct Alphabet {
  std::array<uint16_t, 256> char_of{};
  std::array<int16_t, kAlphabetEnd> byte_of{};
};

/// Printable Latin-1 bytes stand for themselves, the others count up from U+0100.
constexpr Alphabet make_alphabet() {
  Alphabet a;
  a.byte_of.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    const int c = printable ? byte : next++;
    a.char_of[static_cast<size_t>(byte)] = static_cast<uint16_t>(c);
    a.byte_of[static_cast<size_t>(c)] = static_cast<int16_t>(byte);
  }
  return a;
}
constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

void append_byte_level(std::string& out, std::string_view bytes) {
  for (const char byte : bytes) append_utf8(out, kAlphabet.char_of[static_cast<uint8_t>(byte)]);
}

void append_byte_level_decoded(std::string& out, std::string_view token) {
  const size_t before = out.size();
  for (size_t i = 0; i < token.size();) {
    const char32_t c = next_char(token, i);
    if (c >= kAlphabetEnd || kAlphabet.byte_of[c] < 0) {
      out.resize(before);
      out.append(token);
      return;
    }
    out.push_back(static_cast<char>(kAlphabet.byte_of[c]));
  }
}

std::optional<char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const size_t digit = std::string_view("0123456789ABCDEFabcdef").find(c);
    if (digit == std::string_view::npos) return std::nullopt;
    value = value * 16 + static_cast<int>(digit < 16 ? digit : digit - 6);
  }
  return static_cast<char>(value);
}

}  // namespace chorale::coordinator::text
