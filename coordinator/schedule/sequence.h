// One sequence as the scheduler sees it: how far it is planned and computed, which blocks it holds, what is in flight.
// Texts, stop conditions and sinks live with the job (coordinator/jobs); this knows token ids only.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coordinator/schedule/block_pool.h"
#include "parallel/step_plan.h"

namespace chorale::coordinator {

/// What the engine hands over.
struct NewSequence {
  uint64_t id = 0;  // never reused; ascending in order of arrival
  std::vector<int32_t> prompt;
  int32_t max_new_tokens = 1;  // 0: compute the prompt only
  parallel::SamplingParams sampling;
  parallel::PromptLogprobs prompt_logprobs = parallel::PromptLogprobs::kNo;
  int priority = 0;
  std::optional<uint64_t> leader;  // another choice of the same prompt: wait until its prompt is in the prefix cache
};

/// Order of service: smaller first.
struct ServiceRank {
  int priority = 0;
  uint64_t id = 0;
  auto operator<=>(const ServiceRank&) const = default;
};

enum class Pause : uint8_t { kNo, kYes };

/// A running sequence, in tokens:
///
///   0 ........ num_computed ........ num_planned ........ tokens.size() ........ virtual_len() ........ max_len
///   |  KV in completed steps | in steps in flight | known, not planned | sampled by steps in flight |
struct SequenceState {
  enum class Place : uint8_t { kWaiting, kRunning };

  uint64_t id = 0;
  ServiceRank rank;
  std::vector<int32_t> tokens;  // history: prompt, then generated
  int32_t prompt_len = 0;
  int32_t max_len = 0;
  parallel::SamplingParams sampling;
  parallel::PromptLogprobs prompt_logprobs = parallel::PromptLogprobs::kNo;
  std::optional<uint64_t> leader;

  Place place = Place::kWaiting;
  Pause pause = Pause::kNo;
  bool was_admitted = false;     // ever
  bool prompt_computed = false;  // ever, by a completed step
  uint32_t incarnation =
      0;  // grows when the world forgets the sequence: older chunks in flight say nothing about its blocks
  int32_t num_planned = 0;
  int32_t num_computed = 0;
  int32_t num_pending_samples = 0;   // of all incarnations
  int32_t num_chunks_in_flight = 0;  // of all incarnations
  uint64_t last_step = 0;            // that had a chunk of it
  uint64_t last_sample_step = 0;
  std::vector<int32_t> blocks;       // block table
  int64_t num_published = 0;         // leading blocks known to the prefix cache
  ContentId content = kRootContent;  // of the last published block

  int32_t known_len() const { return static_cast<int32_t>(tokens.size()); }
  int32_t virtual_len() const { return known_len() + num_pending_samples; }
  /// All tokens it may have are sampled or in flight: it only waits for results.
  bool is_fully_planned() const { return max_len > prompt_len ? virtual_len() >= max_len : num_planned >= prompt_len; }
  /// Tokens that the next step may compute.
  int32_t num_ready() const {
    if (is_fully_planned()) return 0;
    return (num_planned < known_len() ? known_len() : virtual_len()) - num_planned;
  }
};

}  // namespace chorale::coordinator
