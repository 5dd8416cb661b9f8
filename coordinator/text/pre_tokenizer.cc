#include "coordinator/text/pre_tokenizer.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "comm/base/error.h"
#include "coordinator/text/byte_level.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

using Span = Regex::Span;

/// Runs of spans that become one piece each.
void merge_spans(std::vector<Span>& spans, SplitBehavior behavior) {
  std::vector<Span> merged;
  bool previous_match = false;
  const auto join = [&](const Span& span) {
    switch (behavior) {
      case SplitBehavior::kContiguous: return span.is_match == previous_match;
      default: return span.is_match && !previous_match;
    }
  };
  if (behavior == SplitBehavior::kMergedWithNext) std::reverse(spans.begin(), spans.end());
  for (const Span& span : spans) {
    if (join(span) && !merged.empty()) {
      merged.back().begin = std::min(merged.back().begin, span.begin);
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
    previous_match = span.is_match;
  }
  if (behavior == SplitBehavior::kMergedWithNext) std::reverse(merged.begin(), merged.end());
  spans = std::move(merged);
}

class RegexSplit : public PreTokenizer {
 public:
  RegexSplit(std::string_view pattern, SplitBehavior behavior, Invert invert)
      : regex_(pattern), behavior_(behavior), invert_(invert) {}

  void apply(Pieces& pieces) const override {
    std::vector<Piece> out;
    out.reserve(pieces.items.size());
    std::vector<Span> spans;
    for (const Piece& piece : pieces.items) {
      spans.clear();
      regex_.find_all(piece.text, spans);
      if (invert_ == Invert::kYes)
        for (Span& span : spans) span.is_match = !span.is_match;
      split_piece(piece, spans, behavior_, out);
    }
    pieces.items = std::move(out);
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  Invert invert_;
};

/// Splits where single characters match.
class CharSplit : public PreTokenizer {
 public:
  CharSplit(std::function<bool(char32_t)> matches, SplitBehavior behavior)
      : matches_(std::move(matches)), behavior_(behavior) {}

  void apply(Pieces& pieces) const override {
    std::vector<Piece> out;
    std::vector<Span> spans;
    for (const Piece& piece : pieces.items) {
      spans.clear();
      size_t covered = 0;
      for (size_t i = 0; i < piece.text.size();) {
        const size_t begin = i;
        if (!matches_(next_char(piece.text, i))) continue;
        if (covered < begin) spans.push_back({covered, begin, false});
        spans.push_back({begin, i, true});
        covered = i;
      }
      if (covered < piece.text.size()) spans.push_back({covered, piece.text.size(), false});
      split_piece(piece, spans, behavior_, out);
    }
    pieces.items = std::move(out);
  }

 private:
  std::function<bool(char32_t)> matches_;
  SplitBehavior behavior_;
};

/// Rewrites every piece by itself.
template <typename Rewrite>
void rewrite_pieces(Pieces& pieces, size_t growth, size_t extra, Rewrite rewrite) {
  size_t bytes = 0;
  for (const Piece& piece : pieces.items) bytes += growth * piece.text.size() + extra;
  std::string& buffer = pieces.new_buffer(bytes);  // never reallocated: views into it stay good
  for (Piece& piece : pieces.items) {
    const size_t begin = buffer.size();
    rewrite(piece, buffer);
    piece.text = std::string_view(buffer).substr(begin);
  }
}

class ByteLevelAlphabet : public PreTokenizer {
 public:
  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, 2, 0, [](const Piece& piece, std::string& out) { append_byte_level(out, piece.text); });
  }
};

class PrefixSpace : public PreTokenizer {
 public:
  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, 1, 1, [](const Piece& piece, std::string& out) {
      if (!piece.text.starts_with(' ')) out.push_back(' ');
      out.append(piece.text);
    });
  }
};

enum class Prepend { kNever, kFirst, kAlways };

class Metaspace : public PreTokenizer {
 public:
  explicit Metaspace(const JsonAt& json) {
    append_utf8(mark_, json.character_or("replacement", U'\u2581'));
    const std::string scheme =
        json.string_or("prepend_scheme", json.boolean_or("add_prefix_space", true) ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      json.bad("prepend_scheme must be always, first or never, not '" + scheme + "'");
    prepend_ = scheme == "always" ? Prepend::kAlways : scheme == "first" ? Prepend::kFirst : Prepend::kNever;
    if (json.boolean_or("split", true))
      split_ = make_split(escape_pattern(mark_), SplitBehavior::kMergedWithNext, Invert::kNo);
  }

  void apply(Pieces& pieces) const override {
    rewrite_pieces(pieces, mark_.size(), mark_.size(), [this](const Piece& piece, std::string& out) {
      const bool wanted = prepend_ == Prepend::kAlways || (prepend_ == Prepend::kFirst && piece.at_start);
      if (wanted && !piece.text.starts_with(mark_) && !piece.text.starts_with(' ')) out.append(mark_);
      for (const char c : piece.text) c == ' ' ? out.append(mark_) : out.append(1, c);
    });
    if (split_) split_->apply(pieces);
  }

 private:
  std::string mark_;
  Prepend prepend_ = Prepend::kNever;
  std::unique_ptr<const PreTokenizer> split_;
};

class Sequence : public PreTokenizer {
 public:
  explicit Sequence(std::vector<std::unique_ptr<const PreTokenizer>> items) : items_(std::move(items)) {}
  void apply(Pieces& pieces) const override {
    for (const auto& item : items_) item->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<const PreTokenizer>> items_;
};

SplitBehavior behavior_of(const JsonAt& json, std::string_view fallback) {
  const std::string name = json.string_or("behavior", fallback);
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  json.bad("behavior must be Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, not '" + name + "'");
}

std::unique_ptr<const PreTokenizer> split_of(const JsonAt& json) {
  const JsonAt pattern = json.member("pattern");
  const auto literal = pattern.find("String");
  const std::string source = literal ? escape_pattern(literal->string()) : pattern.member("Regex").string();
  const SplitBehavior behavior = behavior_of(json, "");
  return make_split(source, behavior, json.boolean_or("invert", false) ? Invert::kYes : Invert::kNo);
}

std::unique_ptr<const PreTokenizer> byte_level_of(const JsonAt& json) {
  std::vector<std::unique_ptr<const PreTokenizer>> steps;
  if (json.boolean_or("add_prefix_space", true)) steps.push_back(std::make_unique<PrefixSpace>());
  if (json.boolean_or("use_regex", true))
    steps.push_back(make_split(kGpt2Pattern, SplitBehavior::kIsolated, Invert::kNo));
  steps.push_back(make_byte_level_alphabet());
  return make_sequence(std::move(steps));
}

bool is_ascii_symbol(char32_t c) {
  return (c >= 0x21 && c <= 0x2f) || (c >= 0x3a && c <= 0x40) || (c >= 0x5b && c <= 0x60) || (c >= 0x7b && c <= 0x7e);
}
bool is_bert_punctuation(char32_t c) { return is_ascii_symbol(c) || is_punctuation(c); }

std::unique_ptr<const PreTokenizer> char_split(std::function<bool(char32_t)> matches, SplitBehavior behavior) {
  return std::make_unique<CharSplit>(std::move(matches), behavior);
}

std::unique_ptr<const PreTokenizer> sequence_of(const JsonAt& json) {
  std::vector<std::unique_ptr<const PreTokenizer>> items;
  json.member("pretokenizers").each([&](const JsonAt& item) { items.push_back(make_pre_tokenizer(item)); });
  return make_sequence(std::move(items));
}

std::unique_ptr<const PreTokenizer> bert() {
  std::vector<std::unique_ptr<const PreTokenizer>> items;
  items.push_back(char_split(is_white_space, SplitBehavior::kRemoved));
  items.push_back(char_split(is_bert_punctuation, SplitBehavior::kIsolated));
  return make_sequence(std::move(items));
}

}  // namespace

void split_piece(const Piece& piece, std::vector<Span>& spans, SplitBehavior behavior, std::vector<Piece>& out) {
  const bool removes = behavior == SplitBehavior::kRemoved;
  if (!removes && behavior != SplitBehavior::kIsolated) merge_spans(spans, behavior);
  for (const Span& span : spans) {
    if (span.begin == span.end || (removes && span.is_match)) continue;
    out.push_back({piece.text.substr(span.begin, span.end - span.begin), piece.at_start && span.begin == 0});
  }
}

std::unique_ptr<const PreTokenizer> make_split(std::string_view pattern, SplitBehavior behavior, Invert invert) {
  return std::make_unique<RegexSplit>(pattern, behavior, invert);
}
std::unique_ptr<const PreTokenizer> make_byte_level_alphabet() { return std::make_unique<ByteLevelAlphabet>(); }
std::unique_ptr<const PreTokenizer> make_sequence(std::vector<std::unique_ptr<const PreTokenizer>> items) {
  return std::make_unique<Sequence>(std::move(items));
}

std::unique_ptr<const PreTokenizer> make_pre_tokenizer(const JsonAt& json) {
  const std::string& type = json.member("type").string();
  if (type == "Sequence") return sequence_of(json);
  if (type == "Split") return split_of(json);
  if (type == "ByteLevel") return byte_level_of(json);
  if (type == "Digits")
    return char_split(
        is_number, json.boolean_or("individual_digits", false) ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
  if (type == "Metaspace") return std::make_unique<Metaspace>(json);
  if (type == "Whitespace")  // Rust's \w has the joiners too
    return make_split(R"([\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+)", SplitBehavior::kRemoved, Invert::kYes);
  if (type == "WhitespaceSplit") return char_split(is_white_space, SplitBehavior::kRemoved);
  if (type == "Punctuation") return char_split(is_bert_punctuation, behavior_of(json, "Isolated"));
  if (type == "BertPreTokenizer") return bert();
  if (type == "CharDelimiterSplit")
    return char_split([delimiter = json.member("delimiter").character()](char32_t c) { return c == delimiter; },
                      SplitBehavior::kRemoved);
  fail(ErrorCode::kUnsupported,
       "{}: pre-tokenizer '{}' is not supported; supported are ByteLevel, Split, Digits, Metaspace, Whitespace, "
       "WhitespaceSplit, Punctuation, BertPreTokenizer, CharDelimiterSplit and Sequence",
       json.where(), type);
}

}  // namespace chorale::coordinator::text
