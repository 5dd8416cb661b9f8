// Regular expressions of tokenizers: written for Oniguruma in Ruby syntax (what the Hugging Face library compiles them
// with), run by PCRE2. Patterns and texts are outside data: a pattern that needs too many steps on a text ends in an
// Error, never in a hang.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace chorale::coordinator::text {

/// Rewrites a pattern so that PCRE2 reads it as Oniguruma does: \s, \w, \h and their complements, interval possessives,
/// (?m). Throws Error{kUnsupported} for class intersections and the few other things PCRE2 cannot say.
std::string translate_pattern(std::string_view pattern);

/// Escapes what has a meaning in a pattern.
std::string escape_pattern(std::string_view literal);

/// Thread: const methods may run on many threads at once.
class Regex {
 public:
  /// Throws Error{kCorrupt} with the compiler's message and place.
  explicit Regex(std::string_view pattern);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  struct Span {
    size_t begin;
    size_t end;
    bool is_match;
  };
  /// Cuts `text` into matches and what lies between them, ascending, empty matches included (except right after another
  /// match). An empty text gives one empty span. REQUIRES: valid UTF-8. Throws Error{kResourceExhausted} when it takes
  /// too long.
  void find_all(std::string_view text, std::vector<Span>& out) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace chorale::coordinator::text
