#include "coordinator/commands/parse_arguments.h"

#include <charconv>

#include <cxxopts.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator {

cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv) {
  cxxopts::ParseResult result = options.parse(argc, argv);
  if (!result.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "unexpected argument '{}'; --help lists the options", result.unmatched().front());
  return result;
}

uint64_t seed_of(const cxxopts::ParseResult& arguments, const std::string& option) {
  const auto text = arguments[option].as<std::string>();
  const char* const last = text.data() + text.size();
  uint64_t positive = 0;
  if (const auto [end, error] = std::from_chars(text.data(), last, positive); error == std::errc() && end == last)
    return positive;
  int64_t any = 0;
  if (const auto [end, error] = std::from_chars(text.data(), last, any); error == std::errc() && end == last)
    return static_cast<uint64_t>(any);
  fail(ErrorCode::kInvalidArgument, "--{} {}: expected a 64-bit integer", option, text);
}

std::vector<std::string> texts_of(const cxxopts::ParseResult& arguments, const std::string& option) {
  std::vector<std::string> texts;
  for (const cxxopts::KeyValue& argument : arguments.arguments())
    if (argument.key() == option) texts.push_back(argument.value());
  return texts;
}

uint64_t parse_bytes(const std::string& flag, const std::string& text) {
  uint64_t value = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  int shift = 0;
  if (end + 1 == last) shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : -1;
  const bool good =
      error == std::errc() && shift >= 0 && (end == last || end + 1 == last) && value < (uint64_t{1} << 33);
  const bool plain = error == std::errc() && end == last;
  if (!good && !plain) fail(ErrorCode::kInvalidArgument, "--{} {}: expected bytes as in 512M or 4G", flag, text);
  return plain ? value : value << shift;
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace chorale::coordinator
