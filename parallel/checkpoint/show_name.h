// Shows a name that came from outside inside a one-line message: control and non-ASCII bytes escaped, long names
// shortened. For the parsers of this folder.
#pragma once

#include <string>
#include <string_view>

namespace chorale::parallel {

/// "'blk.0.attn_q.weight'", at most about 100 characters.
std::string show_name(std::string_view name);

}  // namespace chorale::parallel
