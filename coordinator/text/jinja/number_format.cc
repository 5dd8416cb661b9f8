#include "coordinator/text/jinja/number_format.h"

#include <cmath>

#include "coordinator/text/jinja/unicode.h"

namespace chorale::coordinator::jinja {
namespace {

constexpr int kMaxSize = 100'000;  // widths and precisions

std::string grouped(const std::string& digits, char separator, size_t every) {
  if (separator == '\0') return digits;
  const size_t end = std::min(digits.find_first_of(".e%"), digits.size());
  std::string out = digits.substr(end);
  for (size_t i = end; i > 0; --i) {
    out.insert(out.begin(), digits[i - 1]);
    if ((end - i + 1) % every == 0 && i > 1) out.insert(out.begin(), separator);
  }
  return out;
}

std::string sign_of(bool is_negative, char sign) {
  if (is_negative) return "-";
  return sign == '-' ? "" : std::string(1, sign);
}

}  // namespace

std::optional<int> read_size(std::string_view text, size_t& at) {
  std::optional<int> size;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    size = size.value_or(0) * 10 + (text[at] - '0');
    if (*size > kMaxSize) raise("a format's width or precision is above {}", kMaxSize);
  }
  return size;
}

std::string format_integer(int64_t value, const NumberStyle& style) {
  const uint64_t size = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits;
  std::string prefix;
  switch (style.type) {
    case 'x':
      digits = fmt::format("{:x}", size);
      prefix = "0x";
      break;
    case 'X':
      digits = fmt::format("{:X}", size);
      prefix = "0X";
      break;
    case 'o':
      digits = fmt::format("{:o}", size);
      prefix = "0o";
      break;
    case 'b':
      digits = fmt::format("{:b}", size);
      prefix = "0b";
      break;
    default: digits = std::to_string(size);
  }
  if (style.precision && digits.size() < static_cast<size_t>(*style.precision))
    digits.insert(0, static_cast<size_t>(*style.precision) - digits.size(), '0');
  const size_t every = prefix.empty() ? 3 : 4;
  return sign_of(value < 0, style.sign) + (style.alternate ? prefix : "") + grouped(digits, style.grouping, every);
}

std::string format_float(double value, const NumberStyle& style) {
  const bool is_negative = std::signbit(value) && !std::isnan(value);
  const char lower = static_cast<char>(style.type | 0x20);
  const bool is_percent = style.type == '%';
  const bool is_large = style.type == 'E' || style.type == 'F' || style.type == 'G';
  const double size = std::abs(is_percent ? value * 100 : value);
  std::string digits;
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
  } else {
    const int precision = style.precision.value_or(6);
    const int shown = lower == 'g' ? std::max(precision, 1) : precision;
    if (lower == 'e')
      digits = fmt::format("{:.{}e}", size, shown);
    else if (lower == 'g')
      digits = style.alternate ? fmt::format("{:#.{}g}", size, shown) : fmt::format("{:.{}g}", size, shown);
    else
      digits = fmt::format("{:.{}f}", size, shown);
    if (style.alternate && lower != 'g' && precision == 0)
      digits.insert(std::min(digits.find('e'), digits.size()), ".");
    digits = grouped(digits, style.grouping, 3);
  }
  if (is_large) digits = to_upper(digits);
  return sign_of(is_negative, style.sign) + digits + (is_percent ? "%" : "");
}

std::string align_text(const std::string& text, char alignment, const std::string& fill, size_t width) {
  const size_t chars = count_chars(text);
  if (chars >= width) return text;
  const size_t missing = width - chars;
  const auto padding = [&](size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += fill;
    return out;
  };
  if (alignment == '<') return text + padding(missing);
  if (alignment == '^') return padding(missing / 2) + text + padding(missing - missing / 2);
  if (alignment != '=') return padding(missing) + text;
  size_t after_sign = !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ') ? 1 : 0;
  if (text.size() > after_sign + 1 && text[after_sign] == '0' &&
      std::isalpha(static_cast<unsigned char>(text[after_sign + 1])))
    after_sign += 2;  // after 0x
  return text.substr(0, after_sign) + padding(missing) + text.substr(after_sign);
}

}  // namespace chorale::coordinator::jinja
