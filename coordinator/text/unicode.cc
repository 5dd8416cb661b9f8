#include "coordinator/text/unicode.h"

#include <cstdint>

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/uniset.h>

#include "comm/base/error.h"

namespace chorale::coordinator::text {
namespace {

/// What stands at the start of `bytes`: a whole character (valid), a part that more bytes could complete (incomplete),
/// or a maximal invalid part; `length` bytes of it. Table 3-7 of the Unicode standard.
struct Utf8Part {
  enum class Kind { kValid, kIncomplete, kInvalid } kind;
  size_t length;
};

Utf8Part first_part(std::string_view bytes) {
  using Kind = Utf8Part::Kind;
  const auto at = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t first = at(0);
  if (first < 0x80) return {Kind::kValid, 1};
  if (first < 0xc2 || first > 0xf4) return {Kind::kInvalid, 1};
  const size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  uint8_t low = 0x80;
  uint8_t high = 0xbf;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Kind::kIncomplete, i};
    if (at(i) < low || at(i) > high) return {Kind::kInvalid, i};
    low = 0x80;
    high = 0xbf;
  }
  return {Kind::kValid, length};
}

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

/// Copies `bytes` repaired; returns where an incomplete character at the end starts (bytes.size() without one).
size_t repair(std::string_view bytes, std::string& out) {
  size_t done = 0;
  size_t i = 0;
  while (i < bytes.size()) {
    if (static_cast<uint8_t>(bytes[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Part part = first_part(bytes.substr(i));
    if (part.kind != Utf8Part::Kind::kValid) {
      out.append(bytes.substr(done, i - done));
      if (part.kind == Utf8Part::Kind::kIncomplete) return i;
      out.append(kReplacement);
      done = i + part.length;
    }
    i += part.length;
  }
  out.append(bytes.substr(done));
  return bytes.size();
}

bool in_mask(char32_t c, uint32_t mask) { return (U_GET_GC_MASK(static_cast<UChar32>(c)) & mask) != 0; }

bool existed_in(char32_t c, int unicode_version) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] <= unicode_version;
}

const icu::Normalizer2& normalizer(NormalForm form) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* found = nullptr;
  switch (form) {
    case NormalForm::kNfc: found = icu::Normalizer2::getNFCInstance(status); break;
    case NormalForm::kNfd: found = icu::Normalizer2::getNFDInstance(status); break;
    case NormalForm::kNfkc: found = icu::Normalizer2::getNFKCInstance(status); break;
    case NormalForm::kNfkd: found = icu::Normalizer2::getNFKDInstance(status); break;
  }
  if (U_FAILURE(status)) fail(ErrorCode::kSystem, "ICU has no normalisation data: {}", u_errorName(status));
  return *found;
}

/// The reference library normalises by Unicode 9: younger characters stay as they are.
const icu::UnicodeSet& unicode_9() {
  static const icu::UnicodeSet* const set = [] {
    UErrorCode status = U_ZERO_ERROR;
    auto* made = new icu::UnicodeSet(icu::UnicodeString("[:age=9.0:]"), status);
    if (U_FAILURE(status)) fail(ErrorCode::kSystem, "ICU has no ages of characters: {}", u_errorName(status));
    made->freeze();
    return made;
  }();
  return *set;
}

}  // namespace

size_t utf8_length(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

char32_t next_char(std::string_view text, size_t& offset) {
  const auto at = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[offset + i])); };
  const size_t length = utf8_length(text[offset]);
  char32_t c = at(0);
  if (length == 2) c = (c & 0x1f) << 6 | (at(1) & 0x3f);
  if (length == 3) c = (c & 0x0f) << 12 | (at(1) & 0x3f) << 6 | (at(2) & 0x3f);
  if (length == 4) c = (c & 0x07) << 18 | (at(1) & 0x3f) << 12 | (at(2) & 0x3f) << 6 | (at(3) & 0x3f);
  offset += length;
  return c;
}

char32_t previous_char(std::string_view text, size_t& offset) {
  do {
    --offset;
  } while (offset > 0 && (static_cast<uint8_t>(text[offset]) & 0xc0) == 0x80);
  size_t start = offset;
  return next_char(text, start);
}

void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6);
    put(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  } else {
    put(0xf0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3f));
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  }
}

bool is_valid_utf8(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size();) {
    if (static_cast<uint8_t>(bytes[i]) < 0x80) {
      ++i;
      continue;
    }
    const Utf8Part part = first_part(bytes.substr(i));
    if (part.kind != Utf8Part::Kind::kValid) return false;
    i += part.length;
  }
  return true;
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  if (repair(bytes, out) < bytes.size()) out.append(kReplacement);
  return out;
}

void Utf8Repair::push(std::string_view bytes, std::string& out) {
  if (held_.empty()) {
    held_ = bytes.substr(repair(bytes, out));
    return;
  }
  held_.append(bytes);
  held_.erase(0, repair(held_, out));
}

void Utf8Repair::finish(std::string& out) {
  if (!held_.empty()) out.append(kReplacement);
  held_.clear();
}

bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return u_isUWhiteSpace(static_cast<UChar32>(c));
}
bool is_number(char32_t c) { return in_mask(c, U_GC_N_MASK); }
bool is_punctuation(char32_t c) {
  if (c == 0x166d || c == 0x111c9) return true;  // until Unicode 12 and 11
  return in_mask(c, U_GC_P_MASK) && existed_in(c, 8);
}
bool is_mark(char32_t c) {
  if (c == 0x1cf2 || c == 0x1cf3) return true;  // until Unicode 12
  return in_mask(c, U_GC_M_MASK) && existed_in(c, 9) && c != 0x111c9;
}
bool is_other(char32_t c) { return in_mask(c, U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK) && existed_in(c, 8); }
bool is_nonspacing_mark(char32_t c) { return in_mask(c, U_GC_MN_MASK) && existed_in(c, 8); }
bool is_word(char32_t c) {
  return u_isUAlphabetic(static_cast<UChar32>(c)) || in_mask(c, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_JOIN_CONTROL);
}

std::string normalize(std::string_view text, NormalForm form) {
  const icu::Normalizer2& current = normalizer(form);
  const icu::StringPiece piece(text.data(), static_cast<int32_t>(text.size()));
  UErrorCode status = U_ZERO_ERROR;
  if (current.isNormalizedUTF8(piece, status)) return std::string(text);
  std::string out;
  out.reserve(text.size());
  icu::StringByteSink<std::string> sink(&out);
  icu::FilteredNormalizer2(current, unicode_9()).normalizeUTF8(0, piece, sink, nullptr, status);
  if (U_FAILURE(status)) fail(ErrorCode::kSystem, "cannot normalise text: {}", u_errorName(status));
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_char(text, i);
    if (c == 0x130) {  // the one character whose lower case has two: i with a combining dot above
      out.append("i\xcc\x87");
    } else {
      append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
    }
  }
  return out;
}

}  // namespace chorale::coordinator::text
