// Parsing of a subcommand's arguments, the same for all: what no option takes is a usage error, not ignored; seeds are
// what the HTTP API takes as seeds; lines without text are no jobs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cxxopts {
class Options;
class ParseResult;
}  // namespace cxxopts

namespace chorale::coordinator {

/// Throws what cxxopts throws, and Error{kInvalidArgument} naming an argument that belongs to no option.
cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv);

/// The option's text as any 64-bit integer, signed or not, as its bits: `--seed -1` and `"seed": -1` are one seed.
/// Throws Error{kInvalidArgument} for anything else.
uint64_t seed_of(const cxxopts::ParseResult& arguments, const std::string& option = "seed");

/// Every value of a text option that may be given several times, in order; commas belong to the text.
std::vector<std::string> texts_of(const cxxopts::ParseResult& arguments, const std::string& option);

/// Nothing but white space: the commands that read one job, text or chat a line skip such lines.
bool is_blank(std::string_view line);

}  // namespace chorale::coordinator
