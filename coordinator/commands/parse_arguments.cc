#include "coordinator/commands/parse_arguments.h"

#include <cxxopts.hpp>

#include "comm/base/error.h"

namespace chorale::coordinator {

cxxopts::ParseResult parse_arguments(cxxopts::Options& options, int argc, char** argv) {
  cxxopts::ParseResult result = options.parse(argc, argv);
  if (!result.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "unexpected argument '{}'; --help lists the options", result.unmatched().front());
  return result;
}

}  // namespace chorale::coordinator
