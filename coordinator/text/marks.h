// The mark that SentencePiece writes for a blank ("▁", U+2581), and the cutting of long texts at it. Used by the models
// that encode whole texts: where no token reaches over the start of a "▁word", encoding word by word gives the same
// ids, and words can be cached.
#pragma once

#include <string>
#include <string_view>

#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {

inline constexpr std::string_view kMark = "\xe2\x96\x81";

/// Whether a mark follows another character somewhere in `token`.
inline bool has_inner_mark(std::string_view token) {
  bool only_marks = true;
  for (size_t i = 0; i < token.size(); i += utf8_length(token[i])) {
    const bool mark = token.substr(i).starts_with(kMark);
    if (mark && !only_marks) return true;
    only_marks = only_marks && mark;
  }
  return false;
}

/// Marks become blanks.
inline std::string with_blanks(std::string_view token) {
  std::string text;
  size_t begin = 0;
  for (size_t i; (i = token.find(kMark, begin)) != std::string_view::npos; begin = i + kMark.size())
    text.append(token.substr(begin, i - begin)).append(1, ' ');
  return text.append(token.substr(begin));
}

/// Calls visit(word) for each run of marks with the text behind it.
template <typename Visit>
void for_each_marked_word(std::string_view piece, Visit visit) {
  size_t begin = 0;
  for (size_t i = piece.find(kMark, 1); i != std::string_view::npos; i = piece.find(kMark, i + kMark.size())) {
    if (i >= kMark.size() && piece.substr(i - kMark.size(), kMark.size()) == kMark) continue;
    visit(piece.substr(begin, i - begin));
    begin = i;
  }
  visit(piece.substr(begin));
}

}  // namespace chorale::coordinator::text
