#include "coordinator/text/decoder.h"

#include <optional>
#include <utility>

#include "comm/base/error.h"
#include "coordinator/text/byte_level.h"
#include "coordinator/text/regex.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

/// Base of stages that need a whole token at once.
class WholeTokenStage : public DecodeStage {
 public:
  void push(std::string_view text, TokenPart part) override {
    if (part == TokenPart::kWhole) return token(std::string(text));
    held_.append(text);
    if (ends(part)) token(std::exchange(held_, {}));
  }

 protected:
  virtual void token(std::string text) = 0;

 private:
  std::string held_;
};

class JoinWithBlanks : public WholeTokenStage {
  void token(std::string text) override {
    if (!std::exchange(first_, false)) next_->push(" ", TokenPart::kWhole);
    next_->push(text, TokenPart::kWhole);
  }
  bool first_ = true;
};

/// All tokens' bytes become one text; bytes that are no UTF-8 become U+FFFD.
class BytesStage : public WholeTokenStage {
 public:
  void finish() override {
    std::string text;
    repair_.finish(text);
    next_->push(text, first_ ? TokenPart::kWhole : TokenPart::kEnd);
    next_->finish();
  }

 protected:
  void token(std::string text) override {
    std::string out;
    repair_.push(bytes_of(text), out);
    next_->push(out, std::exchange(first_, false) ? TokenPart::kBegin : TokenPart::kInside);
  }
  virtual std::string bytes_of(std::string_view token) { return std::string(token); }

 private:
  Utf8Repair repair_;
  bool first_ = true;
};

class ByteLevelStage : public BytesStage {
  std::string bytes_of(std::string_view token) override {
    std::string bytes;
    append_byte_level_decoded(bytes, token);
    return bytes;
  }
};

/// A run of byte tokens is one string if all of it is UTF-8, else one U+FFFD for each byte: so a run is held until it
/// ends.
class ByteFallbackStage : public WholeTokenStage {
 public:
  void finish() override {
    flush();
    next_->finish();
  }
  void cut() override {
    flush();
    next_->cut();
  }

 private:
  void token(std::string text) override {
    if (const auto byte = byte_of_token(text)) {
      run_.push_back(*byte);
      return;
    }
    flush();
    next_->push(text, TokenPart::kWhole);
  }
  void flush() {
    if (run_.empty()) return;
    if (is_valid_utf8(run_)) {
      next_->push(run_, TokenPart::kWhole);
    } else {
      for (size_t i = 0; i < run_.size(); ++i) next_->push("\xef\xbf\xbd", TokenPart::kWhole);
    }
    run_.clear();
  }
  std::string run_;
};

/// All tokens become one.
class FuseStage : public DecodeStage {
 public:
  void push(std::string_view text, TokenPart /*part*/) override {
    next_->push(text, std::exchange(first_, false) ? TokenPart::kBegin : TokenPart::kInside);
  }
  void finish() override {
    next_->push("", first_ ? TokenPart::kWhole : TokenPart::kEnd);
    next_->finish();
  }

 private:
  bool first_ = true;
};

/// Drops up to `start` leading and `stop` trailing characters `content` of each token.
class StripStage : public DecodeStage {
 public:
  StripStage(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}

  void push(std::string_view text, TokenPart part) override {
    if (begins(part)) left_ = start_;
    while (left_ > 0 && text.starts_with(content_)) {
      text.remove_prefix(content_.size());
      --left_;
    }
    if (!text.empty()) left_ = 0;
    if (stop_ == 0) return next_->push(text, part);
    held_.append(text);  // its end may have to go
    if (!ends(part)) return;
    for (size_t i = 0; i < stop_ && std::string_view(held_).ends_with(content_); ++i)
      held_.resize(held_.size() - content_.size());
    next_->push(std::exchange(held_, {}), TokenPart::kWhole);
  }
  void cut() override {
    left_ = 0;
    next_->cut();
  }

 private:
  std::string content_;
  size_t start_;
  size_t stop_;
  size_t left_ = 0;
  std::string held_;
};

class ReplaceStage : public WholeTokenStage {
 public:
  ReplaceStage(std::shared_ptr<const Regex> regex, std::string content)
      : regex_(std::move(regex)), content_(std::move(content)) {}

 private:
  void token(std::string text) override {
    std::vector<Regex::Span> spans;
    regex_->find_all(text, spans);
    std::string out;
    for (const auto& span : spans)
      span.is_match ? out.append(content_) : out.append(text, span.begin, span.end - span.begin);
    next_->push(out, TokenPart::kWhole);
  }
  std::shared_ptr<const Regex> regex_;
  std::string content_;
};

/// The replacement character becomes a blank, and nothing in the first token.
class MetaspaceStage : public WholeTokenStage {
 public:
  MetaspaceStage(std::string mark, bool prepended) : mark_(std::move(mark)), drop_(prepended) {}

 private:
  void token(std::string text) override {
    std::string out;
    for (size_t i = 0; i < text.size();) {
      const size_t length = utf8_length(text[i]);
      if (text.compare(i, length, mark_) != 0) {
        out.append(text, i, length);
      } else if (!drop_) {
        out.push_back(' ');
      }
      i += length;
    }
    drop_ = false;
    next_->push(out, TokenPart::kWhole);
  }
  std::string mark_;
  bool drop_;
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  if (from.empty()) return;
  for (size_t i = text.find(from); i != std::string::npos; i = text.find(from, i + to.size()))
    text.replace(i, from.size(), to);
}

class WordPieceStage : public WholeTokenStage {
 public:
  WordPieceStage(std::string prefix, bool cleanup) : prefix_(std::move(prefix)), cleanup_(cleanup) {}

 private:
  void token(std::string text) override {
    if (!std::exchange(first_, false))
      text.starts_with(prefix_) ? text.erase(0, prefix_.size()) : text.insert(0, 1, ' ');
    if (cleanup_) {
      constexpr std::pair<std::string_view, std::string_view> kRules[] = {
          {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
          {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
      for (const auto& [from, to] : kRules) replace_all(text, from, to);
    }
    next_->push(text, TokenPart::kWhole);
  }
  std::string prefix_;
  bool cleanup_;
  bool first_ = true;
};

/// The suffix that ends a word becomes a blank, except in the last token, which is therefore held.
class WordSuffixStage : public WholeTokenStage {
 public:
  explicit WordSuffixStage(std::string suffix) : suffix_(std::move(suffix)) {}
  void finish() override {
    emit("");
    next_->finish();
  }
  void cut() override {
    emit(" ");
    next_->cut();
  }

 private:
  void token(std::string text) override {
    emit(" ");
    held_ = std::move(text);
  }
  void emit(std::string_view replacement) {
    if (!held_) return;
    replace_all(*held_, suffix_, replacement);
    next_->push(*held_, TokenPart::kWhole);
    held_.reset();
  }
  std::string suffix_;
  std::optional<std::string> held_;
};

size_t count(const JsonAt& json, std::string_view key) {
  const int64_t value = json.member(key).integer();
  if (value < 0 || value > 1'000'000) json.bad(fmt::format("'{}' must be between 0 and 1000000", key));
  return static_cast<size_t>(value);
}

}  // namespace

class DecodeChain::Output : public DecodeStage {
 public:
  void push(std::string_view piece, TokenPart /*part*/) override { text.append(piece); }
  void finish() override {}
  void cut() override { text.clear(); }
  std::string text;
};

Decoder::Decoder() {
  stages_.emplace_back([] { return std::make_unique<JoinWithBlanks>(); });
}

Decoder::Decoder(const JsonAt& json) { load(json); }

Decoder Decoder::of_bytes(DropLeadingBlank drop) {
  Decoder decoder;
  decoder.stages_.clear();
  decoder.stages_.emplace_back([] { return std::make_unique<BytesStage>(); });
  if (drop == DropLeadingBlank::kYes)
    decoder.stages_.emplace_back([] { return std::make_unique<StripStage>(" ", 1, 0); });
  return decoder;
}

std::string Decoder::bytes_inside(std::string_view token) const {
  std::string bytes;
  if (byte_level_) {
    append_byte_level_decoded(bytes, token);
    return bytes;
  }
  if (const auto byte = byte_fallback_ ? byte_of_token(token) : std::nullopt) return {*byte};
  DecodeChain chain(*this);
  chain.push("x");  // so that the token is not the first of its text
  chain.cut();
  chain.push(token);
  chain.finish();
  return chain.take();
}

void Decoder::load(const JsonAt& json) {
  const std::string& type = json.member("type").string();
  if (type == "Sequence") {
    json.member("decoders").each([this](const JsonAt& item) { load(item); });
  } else if (type == "ByteLevel") {
    byte_level_ = true;
    stages_.emplace_back([] { return std::make_unique<ByteLevelStage>(); });
  } else if (type == "ByteFallback") {
    byte_fallback_ = true;
    stages_.emplace_back([] { return std::make_unique<ByteFallbackStage>(); });
  } else if (type == "Fuse") {
    stages_.emplace_back([] { return std::make_unique<FuseStage>(); });
  } else if (type == "Strip") {
    std::string content;
    append_utf8(content, json.member("content").character());
    stages_.emplace_back([content, start = count(json, "start"), stop = count(json, "stop")] {
      return std::make_unique<StripStage>(content, start, stop);
    });
  } else if (type == "Replace") {
    const JsonAt pattern = json.member("pattern");
    const auto literal = pattern.find("String");
    auto regex =
        std::make_shared<const Regex>(literal ? escape_pattern(literal->string()) : pattern.member("Regex").string());
    stages_.emplace_back([regex = std::move(regex), content = json.member("content").string()] {
      return std::make_unique<ReplaceStage>(regex, content);
    });
  } else if (type == "Metaspace") {
    std::string mark;
    append_utf8(mark, json.character_or("replacement", U'\u2581'));
    const std::string scheme =
        json.string_or("prepend_scheme", json.boolean_or("add_prefix_space", true) ? "always" : "never");
    stages_.emplace_back(
        [mark, prepended = scheme != "never"] { return std::make_unique<MetaspaceStage>(mark, prepended); });
  } else if (type == "WordPiece") {
    stages_.emplace_back([prefix = json.string_or("prefix", "##"), cleanup = json.boolean_or("cleanup", true)] {
      return std::make_unique<WordPieceStage>(prefix, cleanup);
    });
  } else if (type == "BPEDecoder") {
    stages_.emplace_back(
        [suffix = json.string_or("suffix", "</w>")] { return std::make_unique<WordSuffixStage>(suffix); });
  } else {
    fail(ErrorCode::kUnsupported,
         "{}: decoder '{}' is not supported; supported are ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, "
         "WordPiece, "
         "BPEDecoder and Sequence",
         json.where(), type);
  }
}

DecodeChain::DecodeChain(const Decoder& decoder) : output_(std::make_unique<Output>()) {
  for (const auto& make : decoder.stages_) stages_.push_back(make());
  DecodeStage* next = output_.get();
  for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
    (*stage)->set_next(next);
    next = stage->get();
  }
  first_ = next;
}

DecodeChain::~DecodeChain() = default;
void DecodeChain::push(std::string_view token) { first_->push(token, TokenPart::kWhole); }
void DecodeChain::finish() { first_->finish(); }
void DecodeChain::cut() { first_->cut(); }
std::string DecodeChain::take() { return std::exchange(output_->text, {}); }

}  // namespace chorale::coordinator::text
