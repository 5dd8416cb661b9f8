#include "coordinator/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>

#include "coordinator/text/jinja/meter.h"
#include "coordinator/text/jinja/string_literal.h"
#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

/// \r\n and \r become \n, and one newline at the very end is dropped, as Jinja does by default.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) lex_root();
    add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  enum class Tag : uint8_t { kVariable, kBlock };

  [[noreturn]] void fail(const std::string& message) const {
    throw TemplateError(TemplateError::Kind::kSyntax, message, line_);
  }
  std::string_view rest() const { return std::string_view(source_).substr(at_); }
  bool starts(std::string_view prefix) const { return rest().starts_with(prefix); }
  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, line_, std::move(text)}); }
  /// Moves on, counts lines, and remembers whether a line starts here.
  void advance(size_t bytes) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_ + bytes), '\n'));
    if (bytes > 0) line_starting_ = source_[at_ + bytes - 1] == '\n';
    at_ += bytes;
  }
  size_t space_at(size_t from) const {
    const std::string_view tail = std::string_view(source_).substr(from);
    return tail.size() - strip_space_left(tail).size();
  }

  /// Text up to the next {{, {% or {#, then that construct.
  void lex_root() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        add(TokenKind::kText, std::string(rest()));
        return advance(source_.size() - at_);
      }
      const char next = source_[tag + 1];
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    const char opener = source_[tag + 1];
    const char after = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    const char sign = after == '-' || after == '+' ? after : '\0';
    const std::string_view text = std::string_view(source_).substr(at_, tag - at_);
    add_text(text, sign, opener != '{');
    advance(text.size());
    const size_t raw = opener == '%' ? raw_tag_size(sign) : 0;
    if (raw > 0) return lex_raw(raw);
    const size_t opening = sign == '\0' ? 2 : 3;
    if (opener == '#') return lex_comment(opening);
    lex_tag(opener == '{' ? Tag::kVariable : Tag::kBlock, opening);
  }

  /// Emits text before a tag: `-` strips all white space, lstrip_blocks strips the indentation of a statement or
  /// comment.
  void add_text(std::string_view text, char sign, bool is_block) {
    if (sign == '-') {
      text = strip_space_right(text);
    } else if (sign != '+' && is_block) {
      const size_t newline = text.rfind('\n');
      const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_begin > 0 || line_starting_) && strip_space_left(text.substr(line_begin)).empty())
        text = text.substr(0, line_begin);
    }
    if (!text.empty()) add(TokenKind::kText, std::string(text));
  }

  /// Bytes of `{% raw %}` at the current place, or 0.
  size_t raw_tag_size(char sign) const {
    size_t at = at_ + (sign == '\0' ? 2 : 3);
    at += space_at(at);
    if (!std::string_view(source_).substr(at).starts_with("raw")) return 0;
    at += 3;
    at += space_at(at);
    const std::string_view tail = std::string_view(source_).substr(at);
    if (tail.starts_with("-%}")) return at + 3 + space_at(at + 3) - at_;
    return tail.starts_with("%}") ? at + 2 - at_ : 0;
  }

  void lex_raw(size_t opening) {
    advance(opening);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      size_t at = tag + 2;
      char sign = '\0';
      if (at < source_.size() && (source_[at] == '-' || source_[at] == '+')) sign = source_[at++];
      at += space_at(at);
      if (!std::string_view(source_).substr(at).starts_with("endraw")) continue;
      at += 6;
      at += space_at(at);
      const size_t closing = closing_size(at, "%}");
      if (closing == 0) continue;
      add_text(std::string_view(source_).substr(at_, tag - at_), sign, true);
      return advance(at + closing - at_);
    }
    fail("Missing end of raw directive");
  }

  void lex_comment(size_t opening) {
    advance(opening);
    size_t end = source_.find("#}", at_);
    if (end == std::string::npos) fail("Missing end of comment tag");
    if (end > at_ && (source_[end - 1] == '-' || source_[end - 1] == '+')) --end;
    advance(end + closing_size(end, "#}") - at_);
  }

  /// Bytes of `+end`, `-end` with the white space after it, or `end` with one newline (trim_blocks), at `at`; 0 where
  /// none is.
  size_t closing_size(size_t at, std::string_view end) const {
    const std::string_view tail = std::string_view(source_).substr(at);
    if (tail.starts_with('+') && tail.substr(1).starts_with(end)) return 1 + end.size();
    if (tail.starts_with('-') && tail.substr(1).starts_with(end)) return 1 + end.size() + space_at(at + 1 + end.size());
    if (!tail.starts_with(end)) return 0;
    return end.size() + (tail.substr(end.size()).starts_with('\n') ? 1 : 0);
  }

  void lex_tag(Tag tag, size_t opening) {
    add(tag == Tag::kVariable ? TokenKind::kVariableBegin : TokenKind::kBlockBegin, std::string(rest().substr(0, 2)));
    advance(opening);
    std::string brackets;
    while (at_ < source_.size()) {
      if (brackets.empty() && lex_tag_end(tag)) return;
      const size_t space = space_at(at_);
      if (space > 0)
        advance(space);
      else
        lex_token(brackets);
    }
  }

  bool lex_tag_end(Tag tag) {
    size_t size = 0;
    if (tag == Tag::kBlock) {
      size = closing_size(at_, "%}");
    } else if (starts("-}}")) {
      size = 3 + space_at(at_ + 3);
    } else if (starts("}}")) {
      size = 2;
    }
    if (size == 0) return false;
    add(tag == Tag::kVariable ? TokenKind::kVariableEnd : TokenKind::kBlockEnd, "");
    advance(size);
    return true;
  }

  void lex_token(std::string& brackets) {
    const char c = source_[at_];
    if (is_ascii_digit(c)) return lex_number();
    size_t next = at_;
    if (is_word(next_char(source_, next))) return lex_name();
    if (c == '"' || c == '\'') return lex_string(c);
    lex_operator(brackets);
  }

  /// \d+(_\d+)* from `at`; returns where it ends, or `at` where there is none.
  size_t digits_end(size_t at) const {
    const auto digit = [&](size_t i) { return i < source_.size() && is_ascii_digit(source_[i]); };
    while (digit(at) || (at > 0 && at < source_.size() && source_[at] == '_' && digit(at - 1) && digit(at + 1))) ++at;
    return at;
  }

  void lex_number() {
    const size_t whole = digits_end(at_);
    size_t end = whole;
    const auto digit = [&](size_t i) { return i < source_.size() && is_ascii_digit(source_[i]); };
    if (end < source_.size() && source_[end] == '.' && digit(end + 1)) end = digits_end(end + 1);
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) ++exponent;
      if (digit(exponent)) end = digits_end(exponent);
    }
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';  // x.1.5 is x.1 and then .5
    if (end > whole && !after_dot) return add_float(end);
    lex_integer();
  }

  std::string without_underscores(size_t end) const {
    std::string digits = source_.substr(at_, end - at_);
    std::erase(digits, '_');
    return digits;
  }

  void add_float(size_t end) {
    const std::string digits = without_underscores(end);
    Token token{TokenKind::kFloat, line_, digits};
    token.number = std::strtod(digits.c_str(), nullptr);
    tokens_.push_back(std::move(token));
    advance(end - at_);
  }

  void lex_integer() {
    int base = 10;
    size_t end = at_;
    const auto is_digit_of = [&](size_t i, int radix) {
      if (i >= source_.size()) return false;
      const char c = static_cast<char>(source_[i] | 0x20);
      const int value = is_ascii_digit(source_[i]) ? source_[i] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
      return value < radix;
    };
    const auto run_of = [&](size_t at, int radix) {  // (_?digit)*
      while (is_digit_of(at, radix) || (at < source_.size() && source_[at] == '_' && is_digit_of(at + 1, radix))) ++at;
      return at;
    };
    const char mark =
        at_ + 1 < source_.size() && source_[at_] == '0' ? static_cast<char>(source_[at_ + 1] | 0x20) : ' ';
    const int radix = mark == 'b' ? 2 : mark == 'o' ? 8 : mark == 'x' ? 16 : 10;
    if (radix != 10 && run_of(at_ + 2, radix) > at_ + 2) {
      base = radix;
      end = run_of(at_ + 2, radix);
    } else {
      end = source_[at_] == '0' ? run_of(at_ + 1, 1) : run_of(at_ + 1, 10);  // 0 may be followed by zeros only
    }
    std::string digits = without_underscores(end);
    Token token{TokenKind::kInteger, line_, digits};
    if (base != 10) digits.erase(0, 2);
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, base);
    if (error != std::errc() || stop != digits.data() + digits.size())
      fail(fmt::format("the integer {} does not fit 64 bits", token.text));
    tokens_.push_back(std::move(token));
    advance(end - at_);
  }

  void lex_name() {
    size_t end = at_;
    bool valid = true;
    while (end < source_.size()) {
      size_t next = end;
      const char32_t c = next_char(source_, next);
      if (!is_word(c)) break;
      valid = valid && (end == at_ ? is_identifier_start(c) : is_identifier_part(c));
      end = next;
    }
    if (!valid) fail("Invalid character in identifier");
    add(TokenKind::kName, source_.substr(at_, end - at_));
    advance(end - at_);
  }

  void lex_string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail(fmt::format("unexpected char {} at {}: the string has no end", quote, at_));
    add(TokenKind::kString, unescape(std::string_view(source_).substr(at_ + 1, end - at_ - 1), line_));
    advance(end + 1 - at_);
  }

  void lex_operator(std::string& brackets) {
    static constexpr std::string_view kDouble[] = {"//", "**", "==", "!=", ">=", "<="};
    static constexpr std::string_view kSingle = "+-/*%~[](){}><=.:|,;";
    const char c = source_[at_];
    size_t size = kSingle.find(c) == std::string_view::npos ? 0 : 1;
    for (const std::string_view two : kDouble)
      if (starts(two)) size = 2;
    if (size == 0) {
      size_t next = at_;
      next_char(source_, next);
      fail(fmt::format("unexpected char '{}' at {}", source_.substr(at_, next - at_),
                       count_chars(source_.substr(0, at_))));
    }
    if (c == '{') brackets += '}';
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '}' || c == ')' || c == ']') {
      if (brackets.empty()) fail(fmt::format("unexpected '{}'", c));
      const char expected = brackets.back();
      brackets.pop_back();
      if (expected != c) fail(fmt::format("unexpected '{}', expected '{}'", c, expected));
    }
    add(TokenKind::kOperator, std::string(rest().substr(0, size)));
    advance(size);
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

std::string_view describe(TokenKind kind) {
  switch (kind) {
    case TokenKind::kText: return "template data / text";
    case TokenKind::kVariableBegin: return "begin of print statement";
    case TokenKind::kVariableEnd: return "end of print statement";
    case TokenKind::kBlockBegin: return "begin of statement block";
    case TokenKind::kBlockEnd: return "end of statement block";
    case TokenKind::kName: return "name";
    case TokenKind::kString: return "string";
    case TokenKind::kInteger: return "integer";
    case TokenKind::kFloat: return "float";
    case TokenKind::kOperator: return "operator";
    case TokenKind::kEnd: return "end of template";
  }
  return "token";
}

std::string describe(const Token& token) {
  const bool shows_text = token.kind == TokenKind::kName || token.kind == TokenKind::kOperator;
  return shows_text ? token.text : std::string(describe(token.kind));
}

}  // namespace chorale::coordinator::jinja
