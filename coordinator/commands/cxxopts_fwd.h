// cxxopts' classes by name, for the headers of commands: its own header takes seconds to compile and stays in .cc
// files.
#pragma once

namespace cxxopts {
class Options;
class ParseResult;
}  // namespace cxxopts
