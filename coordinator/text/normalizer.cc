#include "coordinator/text/normalizer.h"

#include <functional>
#include <utility>
#include <vector>

#include "comm/base/error.h"
#include "coordinator/text/byte_level.h"
#include "coordinator/text/regex.h"
#include "coordinator/text/unicode.h"

namespace chorale::coordinator::text {
namespace {

class Function : public Normalizer {
 public:
  explicit Function(std::function<void(std::string&)> apply) : apply_(std::move(apply)) {}
  void apply(std::string& text) const override { apply_(text); }

 private:
  std::function<void(std::string&)> apply_;
};

std::unique_ptr<const Normalizer> function(std::function<void(std::string&)> apply) {
  return std::make_unique<Function>(std::move(apply));
}

std::unique_ptr<const Normalizer> form(NormalForm form) {
  return function([form](std::string& text) { text = normalize(text, form); });
}

template <typename Keep>
void filter(std::string& text, Keep keep) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const char32_t c = next_char(text, i);
    if (keep(c)) append_utf8(out, c);
  }
  text = std::move(out);
}

std::unique_ptr<const Normalizer> strip(const JsonAt& json) {
  const bool left = json.boolean_or("strip_left", false);
  const bool right = json.boolean_or("strip_right", false);
  return function([left, right](std::string& text) {
    size_t end = text.size();
    for (size_t i = end; right && i > 0 && is_white_space(previous_char(text, i));) end = i;
    size_t begin = 0;
    for (size_t i = 0; left && i < end && is_white_space(next_char(text, i));) begin = i;
    text = text.substr(begin, end - begin);
  });
}

std::unique_ptr<const Normalizer> replace(const JsonAt& json) {
  const JsonAt pattern = json.member("pattern");
  const auto literal = pattern.find("String");
  const std::string source = literal ? escape_pattern(literal->string()) : pattern.member("Regex").string();
  auto regex = std::make_shared<const Regex>(source);
  std::string content = json.member("content").string();
  return function([regex = std::move(regex), content = std::move(content)](std::string& text) {
    std::vector<Regex::Span> spans;
    regex->find_all(text, spans);
    std::string out;
    for (const auto& span : spans)
      span.is_match ? out.append(content) : out.append(text, span.begin, span.end - span.begin);
    text = std::move(out);
  });
}

bool is_cjk_ideograph(char32_t c) {
  constexpr std::pair<char32_t, char32_t> kRanges[] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df},
                                                       {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf},
                                                       {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
  for (const auto& [first, last] : kRanges)
    if (c >= first && c <= last) return true;
  return false;
}

std::unique_ptr<const Normalizer> bert(const JsonAt& json) {
  const bool clean = json.boolean_or("clean_text", true);
  const bool chinese = json.boolean_or("handle_chinese_chars", true);
  const bool lower = json.boolean_or("lowercase", true);
  const bool accents = json.boolean_or("strip_accents", lower);
  return function([=](std::string& text) {
    if (clean || chinese) {
      std::string out;
      for (size_t i = 0; i < text.size();) {
        const char32_t c = next_char(text, i);
        const bool blank = c == '\t' || c == '\n' || c == '\r';
        if (clean && (c == 0 || c == 0xfffd || (!blank && is_other(c)))) continue;
        const bool pad = chinese && is_cjk_ideograph(c);
        if (pad) out.push_back(' ');
        append_utf8(out, clean && is_white_space(c) ? U' ' : c);
        if (pad) out.push_back(' ');
      }
      text = std::move(out);
    }
    if (accents) {
      text = normalize(text, NormalForm::kNfd);
      filter(text, [](char32_t c) { return !is_nonspacing_mark(c); });
    }
    if (lower) text = to_lower(text);
  });
}

class Sequence : public Normalizer {
 public:
  explicit Sequence(const JsonAt& json) {
    json.member("normalizers").each([this](const JsonAt& item) { items_.push_back(make_normalizer(item)); });
  }
  void apply(std::string& text) const override {
    for (const auto& item : items_) item->apply(text);
  }

 private:
  std::vector<std::unique_ptr<const Normalizer>> items_;
};

}  // namespace

std::unique_ptr<const Normalizer> make_normalizer(const JsonAt& json) {
  const std::string& type = json.member("type").string();
  if (type == "NFC") return form(NormalForm::kNfc);
  if (type == "NFD") return form(NormalForm::kNfd);
  if (type == "NFKC") return form(NormalForm::kNfkc);
  if (type == "NFKD") return form(NormalForm::kNfkd);
  if (type == "Lowercase") return function([](std::string& text) { text = to_lower(text); });
  if (type == "StripAccents")
    return function([](std::string& text) { filter(text, [](char32_t c) { return !is_mark(c); }); });
  if (type == "Prepend")
    return function([prefix = json.member("prepend").string()](std::string& text) {
      if (!text.empty()) text.insert(0, prefix);
    });
  if (type == "ByteLevel")
    return function([](std::string& text) {
      std::string out;
      append_byte_level(out, text);
      text = std::move(out);
    });
  if (type == "Strip") return strip(json);
  if (type == "Replace") return replace(json);
  if (type == "BertNormalizer") return bert(json);
  if (type == "Sequence") return std::make_unique<Sequence>(json);
  fail(ErrorCode::kUnsupported,
       "{}: normalizer '{}' is not supported; supported are NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, "
       "Prepend, "
       "Replace, ByteLevel, BertNormalizer and Sequence",
       json.where(), type);
}

}  // namespace chorale::coordinator::text
