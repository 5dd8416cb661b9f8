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

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n") == std::string_view::npos; }

}  // namespace chorale::coordinator
