// One function per subcommand of `chorale`. main() picks it by name; argv[0] is the subcommand's name. Each returns the exit code:
// 0 ok, 1 failure, 2 usage.
#pragma once

namespace chorale::coordinator {

int run_tokenize(int argc, char** argv);

}  // namespace chorale::coordinator
