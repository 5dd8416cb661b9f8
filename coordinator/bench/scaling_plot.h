// The picture of a sweep over layouts, as SVG: speed-up with its ideal, efficiency, and where the stages' time went.
#pragma once

#include <span>
#include <string>

#include "coordinator/bench/scaling.h"

namespace chorale::coordinator::bench {

/// `subtitle` says what was measured where. REQUIRES: rows not empty.
std::string plot_scaling(std::span<const ScalingRow> rows, const std::string& subtitle);

}  // namespace chorale::coordinator::bench
