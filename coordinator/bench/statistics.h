// What the benches do with their samples: percentiles, and which samples count on a machine whose memory bandwidth
// changes under them.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace chorale::coordinator::bench {

/// Linear between the two nearest ranks, as numpy does. `percent` in 0..100. REQUIRES: values not empty.
double percentile(std::span<const double> values, double percent);
double mean(std::span<const double> values);

/// A value measured between two looks at the machine's read bandwidth (GB/s).
struct Sample {
  double value = 0;
  double read_gbps_before = 0;
  double read_gbps_after = 0;
  double read_gbps() const { return (read_gbps_before + read_gbps_after) / 2; }
};

/// Bandwidths further apart than this factor are two states of the machine: a virtual machine's flip between paths to
/// memory was measured as 1.7 (docs/results), noise inside one state as 1.1.
constexpr double kStateFactor = 1.3;
bool same_state(double read_gbps_a, double read_gbps_b);

/// Which samples count.
struct Selection {
  std::vector<size_t> kept;    // indices, ascending; all of one state of the machine
  size_t num_flipped = 0;      // dropped: the state changed during the sample
  size_t num_other_state = 0;  // dropped: stable, but in a state that fewer samples saw
};
/// Keeps the samples of the state that most stable samples saw. When no sample was stable all are kept, and num_flipped
/// says so.
Selection select(std::span<const Sample> samples);

}  // namespace chorale::coordinator::bench
