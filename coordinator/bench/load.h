// Equal jobs through an Engine, all at once, timed from the first submission to the last token. `bench engine` is the
// caller. Prompts are lists of random ids, so models need no tokenizer.
#pragma once

#include <cstdint>
#include <vector>

#include "coordinator/engine.h"

namespace chorale::coordinator::bench {

struct LoadShape {
  int streams = 1;
  int prompt_tokens = 1;
  int new_tokens = 1;  // of each stream; greedy, past any EOS
  uint64_t seed = 0;   // of the prompts
};

struct LoadTimes {
  double seconds = 0;                 // first submission to last token
  std::vector<double> token_gaps_ms;  // between consecutive tokens of a stream, all streams
};

/// Throws Error with the failure of a job that was refused or did not finish.
LoadTimes run_load(Engine& engine, const LoadShape& shape);

/// What the engine's counters say about the time between two snapshots of one run.
struct RunCosts {
  double comm_share = 0;                // of the seconds in which stages computed or communicated
  double bubble = 0;                    // share of stages x wall time in which a stage did neither
  double overhead_us_per_token = 0;     // wall time in which the last stage had no step, over tokens
  double coordinator_us_per_token = 0;  // the engine thread at work, mostly in the shadow of steps
};
RunCosts costs_of(const EngineStats& before, const EngineStats& after, double wall_seconds, int64_t num_tokens);

}  // namespace chorale::coordinator::bench
