// How long a worker's process may take to end after a stop. Whoever waits on the way out takes its time from here, and
// who ends a process that hangs allows the sum: so a clean end, however slow, is not taken for a hang.
#pragma once

#include <chrono>

namespace chorale {

// After a stop that ends a world in order, counted from when the worker takes it, between two steps:
constexpr std::chrono::seconds kLastWork{10};  // for what its device still computes, which nobody wants any more
constexpr std::chrono::seconds kFarewell{1};   // for the end of one communicator over device memory
constexpr int kMostFarewells = 4;              // a stage's group, the stages before and after, sampled ids
constexpr std::chrono::seconds kTidyUp{2};     // memory, files, threads
constexpr std::chrono::seconds kCleanEnd = kLastWork + kMostFarewells * kFarewell + kTidyUp;

// After a stop of a world that is lost, counted from when it comes: the worker may hang in a step whose peers are gone.
constexpr std::chrono::seconds kLostEnd{5};

}  // namespace chorale
