// One continuation of a job's prompt while it grows: turns sampled tokens into text and decides when it ends. The
// engine feeds it; it knows neither scheduler nor sink.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "coordinator/jobs/job.h"
#include "coordinator/jobs/stop_matcher.h"
#include "coordinator/jobs/text_stream.h"

namespace chorale::coordinator {

/// Thread: engine only.
class Choice {
 public:
  /// `eos_ids`: the model's. `request` must outlive the choice.
  Choice(const JobRequest& request, int index, std::span<const int32_t> eos_ids, std::unique_ptr<TextStream> text);

  /// The event for the next token. REQUIRES: !is_finished().
  TokenEvent accept(parallel::SampledToken token);
  bool is_finished() const { return is_finished_; }
  int32_t num_generated() const { return num_generated_; }

 private:
  void finish_text(TokenEvent& event);
  void append_text(TokenEvent& event, std::string_view piece);

  const JobRequest& request_;
  int index_;
  std::span<const int32_t> eos_ids_;
  std::unique_ptr<TextStream> text_;
  StopMatcher stops_;
  int32_t num_generated_ = 0;
  bool is_finished_ = false;
};

/// What the sampler masks while fewer than min_tokens were generated: EOS (also under ignore_eos, as vLLM does) and the
/// stop tokens.
std::vector<int32_t> banned_until_min_tokens(const JobRequest& request, std::span<const int32_t> eos_ids);

}  // namespace chorale::coordinator
