// Parsing of a subcommand's arguments, the same for all: what no option takes is a usage error, not ignored.
#pragma once

namespace cxxopts {
class Options;
class ParseResult;
}  // namespace cxxopts

namespace chorale::coordinator {

/// Throws what cxxopts throws, and Error{kInvalidArgument} naming an argument that belongs to no option.
cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv);

}  // namespace chorale::coordinator
