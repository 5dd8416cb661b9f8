// Oniguruma's Ruby syntax (https://github.com/kkos/oniguruma/blob/master/doc/RE) rewritten for PCRE2. Only what differs
// is touched.
#include <array>
#include <cctype>
#include <optional>
#include <vector>

#include <unicode/uchar.h>

#include "comm/base/error.h"
#include "coordinator/text/regex.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

// What may stand between the brackets of a class.
constexpr std::string_view kSpace = R"(\p{White_Space})";
constexpr std::string_view kDigit = R"(\p{Nd})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kHex = "0-9a-fA-F";
// Outside a class, Oniguruma takes \w below U+0100 from ISO 8859-1, where the superscripts and fractions are word
// characters.
constexpr std::string_view kBareWordExtra = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

struct Named {
  std::string_view name;
  std::string_view members;
};
/// Names that both [:name:] and \p{name} accept and that PCRE2 reads otherwise.
constexpr std::array<Named, 9> kPosix = {{{"alpha", R"(\p{Alphabetic})"},
                                          {"alnum", R"(\p{Alphabetic}\p{Nd})"},
                                          {"space", kSpace},
                                          {"digit", kDigit},
                                          {"upper", R"(\p{Uppercase})"},
                                          {"lower", R"(\p{Lowercase})"},
                                          {"word", kWord},
                                          {"xdigit", kHex},
                                          {"punct", R"(\p{P}\p{S})"}}};

std::string lower_name(std::string_view name) {
  std::string lower;
  for (const char c : name)
    if (c != '_' && c != '-' && c != ' ')
      lower.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  return lower;
}

std::optional<std::string_view> posix_members(std::string_view name) {
  const std::string lower = lower_name(name);
  for (const Named& named : kPosix)
    if (named.name == lower) return named.members;
  return std::nullopt;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  std::string run() {
    groups_.push_back({});
    while (at_ < in_.size()) step();
    if (groups_.size() != 1) refuse("an unclosed group");
    out_.append(groups_.back().implied_closes, ')');
    return std::move(out_);
  }

 private:
  struct Group {
    size_t start = 0;           // of its text in out_
    size_t implied_closes = 0;  // "(?i)" opened a group that ends with this one
  };

  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorCode::kUnsupported, "pattern '{:.200}' uses {} (near byte {}), which is not supported", in_, what, at_);
  }
  bool sees(std::string_view text) const { return in_.substr(at_).starts_with(text); }
  char peek(size_t ahead = 0) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  void step() {
    const char c = peek();
    if (c == '\\') return escape();
    if (c == '[') {
      atom_ = out_.size();
      return char_class();
    }
    if (c == '(') return open_group();
    if (c == ')') return close_group();
    if (c == '{') return interval();
    if (c == '*' || c == '+' || c == '?' || c == '|') {
      out_.push_back(c);
      ++at_;
      return;
    }
    atom_ = out_.size();
    const size_t length = utf8_length(c);
    out_.append(in_.substr(at_, length));
    at_ += length;
  }

  /// Outside a class.
  void escape() {
    atom_ = out_.size();
    const char c = peek(1);
    if (c == '\0' && at_ + 1 >= in_.size()) refuse("a backslash at the end");
    const auto members = class_escape();
    if (members) {
      out_.append(members->negated ? "[^" : "[").append(members->members);
      if (c == 'w' || c == 'W') out_.append(kBareWordExtra);
      out_.append("]");
      return;
    }
    if (c == 'b' || c == 'B') {
      const std::string word = fmt::format("[{}{}]", kWord, kBareWordExtra);
      const std::string edge = c == 'b' ? "(?:(?<=W)(?!W)|(?<!W)(?=W))" : "(?:(?<=W)(?=W)|(?<!W)(?!W))";
      for (const char e : edge) e == 'W' ? out_.append(word) : out_.append(1, e);
      at_ += 2;
      return;
    }
    plain_escape("AzZGKRXkg");
  }

  struct Members {
    std::string members;
    bool negated;
  };

  /// \s \w \p{..} and the like at `at_`, consumed; nullopt when the escape is something else.
  std::optional<Members> class_escape() {
    const char c = peek(1);
    const char kind = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const bool upper = std::isupper(static_cast<unsigned char>(c)) != 0;
    const std::string_view simple = kind == 's'   ? kSpace
                                    : kind == 'd' ? kDigit
                                    : kind == 'w' ? kWord
                                    : kind == 'h' ? kHex
                                                  : std::string_view();
    if (!simple.empty()) {
      at_ += 2;
      return Members{std::string(simple), upper};
    }
    if (kind != 'p') return std::nullopt;
    if (peek(2) != '{') {  // \pL
      const std::string name(1, peek(2));
      at_ += 3;
      return Members{"\\p{" + name + "}", upper};
    }
    const size_t close = in_.find('}', at_);
    if (close == std::string_view::npos) refuse("\\p without '}'");
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    bool negated = upper;
    if (name.starts_with('^')) {
      name.remove_prefix(1);
      negated = !negated;
    }
    Members members{property(name), negated};
    at_ = close + 1;
    return members;
  }

  /// A bare script name means the script itself; PCRE2 would take its extensions too.
  std::string property(std::string_view name) const {
    const auto posix = posix_members(name);
    if (posix && lower_name(name) != "punct") return std::string(*posix);  // \p{Punct} is the category
    const std::string text(name);
    const int32_t category = u_getPropertyValueEnum(UCHAR_GENERAL_CATEGORY_MASK, text.c_str());
    if (category != UCHAR_INVALID_CODE)
      if (const char* short_name = u_getPropertyValueName(UCHAR_GENERAL_CATEGORY_MASK, category, U_SHORT_PROPERTY_NAME))
        return "\\p{" + std::string(short_name) + "}";
    if (u_getPropertyValueEnum(UCHAR_SCRIPT, text.c_str()) != UCHAR_INVALID_CODE) return "\\p{sc:" + text + "}";
    return "\\p{" + text + "}";
  }

  /// Escapes that keep their meaning (`kept` and a few common ones), and letters that mean themselves in Ruby.
  void plain_escape(std::string_view kept) {
    const char c = peek(1);
    at_ += 2;
    if (c == 'v') {
      out_.append("\\x0b");
    } else if (c == 'x' && peek() == '{') {
      const size_t close = in_.find('}', at_);
      if (close == std::string_view::npos) refuse("\\x without '}'");
      out_.append("\\x").append(in_.substr(at_, close + 1 - at_));
      at_ = close + 1;
    } else if (c == 'u') {
      const bool braced = peek() == '{';
      const size_t digits = braced ? in_.substr(at_).find('}') - 1 : 4;
      if (digits == 0 || digits > 8 || at_ + digits > in_.size()) refuse("\\u without hex digits");
      out_.append("\\x{").append(in_.substr(at_ + (braced ? 1 : 0), digits)).append("}");
      at_ += digits + (braced ? 2 : 0);
    } else if (std::isalpha(static_cast<unsigned char>(c)) != 0 &&
               std::string_view("aefnrtxc").find(c) == std::string_view::npos &&
               kept.find(c) == std::string_view::npos) {
      out_.push_back(c);
    } else {
      const size_t length = utf8_length(c);
      out_.append("\\").append(in_.substr(at_ - 1, length));
      at_ += length - 1;
    }
  }

  void char_class() {
    out_.push_back('[');
    ++at_;
    if (peek() == '^') {
      out_.push_back('^');
      ++at_;
    }
    if (peek() == ']') {
      out_.append("\\]");
      ++at_;
    }
    int nested = 0;
    while (true) {
      if (at_ >= in_.size()) refuse("a class without ']'");
      if (peek() == ']') {
        ++at_;
        if (nested-- == 0) break;
      } else if (sees("&&")) {
        refuse("an intersection of classes ('&&')");
      } else if (sees("[:")) {
        posix_bracket();
      } else if (peek() == '[') {
        if (peek(1) == '^') refuse("a negated class inside a class");
        ++at_;
        ++nested;
      } else if (peek() == '\\') {
        class_member_escape();
      } else {
        const size_t length = utf8_length(peek());
        out_.append(in_.substr(at_, length));
        at_ += length;
      }
    }
    out_.push_back(']');
  }

  void class_member_escape() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
    const auto members = class_escape();
    if (!members) return plain_escape("b");
    if (!members->negated) {
      out_.append(members->members);
      return;
    }
    const bool single =
        members->members.starts_with("\\p{") && members->members.find('}') + 1 == members->members.size();
    if (!single) refuse("a complement of several kinds of characters inside a class");
    out_.append("\\P").append(members->members, 2);
  }

  void posix_bracket() {
    const size_t close = in_.find(":]", at_);
    if (close == std::string_view::npos) {
      out_.append("\\[");
      ++at_;
      return;
    }
    const auto members = posix_members(in_.substr(at_ + 2, close - at_ - 2));
    out_.append(members ? *members : in_.substr(at_, close + 2 - at_));
    at_ = close + 2;
  }

  void open_group() {
    if (sees("(*")) refuse("'(*'");
    if (sees("(?#")) {
      const size_t close = in_.find(')', at_);
      if (close == std::string_view::npos) refuse("a comment without ')'");
      at_ = close + 1;
      return;
    }
    const size_t start = out_.size();
    if (peek(1) != '?') {
      out_.push_back('(');
      ++at_;
    } else if (const char kind = peek(2); kind == ':' || kind == '=' || kind == '!' || kind == '>' || kind == '(') {
      out_.append(in_.substr(at_, kind == '(' ? 2 : 3));
      at_ += kind == '(' ? 2 : 3;
    } else if (kind == '<') {
      out_.append("(?<");
      at_ += 3;
      if (peek() == '=' || peek() == '!') out_.push_back(in_[at_++]);
    } else if (options()) {
      return;
    }
    groups_.push_back({start, 0});
  }

  /// "(?im-x:" or "(?i)". Ruby's m is PCRE2's s. True when it opened no group of its own.
  bool options() {
    size_t end = at_ + 2;
    std::string letters;
    for (; end < in_.size() && std::string_view("imx-").find(in_[end]) != std::string_view::npos; ++end)
      letters.push_back(in_[end] == 'm' ? 's' : in_[end]);
    const bool isolated = end < in_.size() && in_[end] == ')';
    if (letters.empty() || end >= in_.size() || (in_[end] != ':' && !isolated)) refuse("an unknown kind of group");
    out_.append("(?").append(letters).append(":");
    at_ = end + 1;
    if (isolated) ++groups_.back().implied_closes;  // a(?i)b|c is a(?i:b|c)
    return isolated;
  }

  void close_group() {
    if (groups_.size() == 1) refuse("an unmatched ')'");
    out_.append(groups_.back().implied_closes + 1, ')');
    atom_ = groups_.back().start;
    groups_.pop_back();
    ++at_;
  }

  /// "{n,m}": a following '+' repeats the whole in Ruby (it is no possessive), and "{n}?" makes it optional.
  void interval() {
    size_t end = at_ + 1;
    const auto digits = [&] {
      const size_t from = end;
      while (end < in_.size() && std::isdigit(static_cast<unsigned char>(in_[end])) != 0) ++end;
      return in_.substr(from, end - from);
    };
    const std::string_view low = digits();
    const bool comma = end < in_.size() && in_[end] == ',';
    if (comma) ++end;
    const std::string_view high = comma ? digits() : low;
    if (end >= in_.size() || in_[end] != '}' || (low.empty() && high.empty())) {
      out_.append("\\{");
      ++at_;
      return;
    }
    at_ = end + 1;
    out_.append("{").append(low.empty() ? "0" : low);
    if (comma) out_.append(",").append(high);
    out_.append("}");
    if (peek() == '+' || (peek() == '?' && !comma)) {
      out_.insert(atom_, "(?:");
      out_.append(")").append(1, in_[at_++]);
    }
  }

  std::string_view in_;
  size_t at_ = 0;
  std::string out_;
  size_t atom_ = 0;  // where the last quantifiable thing starts in out_
  std::vector<Group> groups_;
};

}  // namespace

std::string translate_pattern(std::string_view pattern) { return Translator(pattern).run(); }

std::string escape_pattern(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~ ").find(c) != std::string_view::npos) out.push_back('\\');
    out.push_back(c);
  }
  return out;
}

}  // namespace chorale::coordinator::text
