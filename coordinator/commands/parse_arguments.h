// Parsing of a subcommand's arguments, the same for all: what no option takes is a usage error, not ignored; seeds are
// what the HTTP API takes as seeds; lines without text are no jobs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coordinator/commands/cxxopts_fwd.h"

namespace chorale::coordinator {

/// Throws what cxxopts throws, and Error{kInvalidArgument} naming an argument that belongs to no option.
cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv);

/// The option's text as any 64-bit integer, signed or not, as its bits: `--seed -1` and `"seed": -1` are one seed.
/// Throws Error{kInvalidArgument} for anything else.
uint64_t seed_of(const cxxopts::ParseResult& arguments, const std::string& option = "seed");

/// Every value of a text option that may be given several times, in order; commas belong to the text.
std::vector<std::string> texts_of(const cxxopts::ParseResult& arguments, const std::string& option);

/// A count of bytes: plain, or with K, M, G (1024). Throws Error{kInvalidArgument} naming the flag.
uint64_t parse_bytes(const std::string& flag, const std::string& text);

/// Nothing but white space: the commands that read one job, text or chat a line skip such lines.
bool is_blank(std::string_view line);

}  // namespace chorale::coordinator
