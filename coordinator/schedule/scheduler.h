// The scheduler: decides which tokens of which sequences the next step computes, and in which KV blocks. Continuous
// batching, chunked prefill, prefix cache, preemption by recomputation, several steps in flight. Pure: it sees no
// socket, clock or device; the engine calls it, and a test can drive it with any world. No answer depends on what it
// decides (architecture.md section 3), only when it comes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "comm/base/error.h"
#include "coordinator/schedule/block_pool.h"
#include "coordinator/schedule/policy.h"
#include "coordinator/schedule/sequence.h"
#include "parallel/step_plan.h"

namespace chorale::coordinator {

struct SchedulerLimits {
  uint64_t epoch = 0;
  int64_t num_kv_blocks = 0;
  int64_t max_model_len = 0;         // tokens
  int max_num_seqs = 64;             // running at once
  int max_num_batched_tokens = 512;  // a step; may be below max_num_seqs
  int num_stages = 1;
  int max_steps_in_flight = 2;
  SchedulingPolicy policy = SchedulingPolicy::kFcfs;
  PrefixCaching prefix_caching = PrefixCaching::kOn;
};

/// Why a sequence of that size could never run under these limits; nullopt if it can.
std::optional<Failure> refusal(const SchedulerLimits& limits, int64_t prompt_len, int64_t max_new_tokens);

/// A sequence that entered the world with this step.
struct Admission {
  uint64_t sequence_id = 0;
  int64_t num_cached_tokens = 0;  // found in the prefix cache
  enum class Kind : uint8_t { kFirst, kResumed } kind = Kind::kFirst;
};

struct ScheduledStep {
  parallel::StepPlan plan;
  std::vector<Admission> admissions;
};

struct CompletedStep {
  std::vector<size_t> accepted;            // indices into StepResult::sampled: tokens that their sequences took
  std::vector<uint64_t> finished_prompts;  // sequences with max_new_tokens 0 whose prompt is computed
  int num_surplus = 0;                     // samples of sequences that had ended
};

struct SchedulerStats {
  uint64_t num_preemptions = 0;
  uint64_t prefix_queries_tokens = 0;
  uint64_t prefix_hits_tokens = 0;
};

/// Thread: engine only.
class Scheduler {
 public:
  explicit Scheduler(const SchedulerLimits& limits);

  /// Queues it. REQUIRES: a new id above all earlier ones, a prompt, no refusal.
  void add(NewSequence sequence);
  /// Forgets it: its blocks are free at once, the world hears of it with the next step, tokens in flight become
  /// surplus. Unknown ids are ignored.
  void remove(uint64_t id);
  /// A paused sequence is given no further tokens, and is the first to lose its blocks when others need them.
  void set_paused(uint64_t id, Pause pause);

  /// The next step, or nullopt: nothing can be computed now, or max_steps_in_flight steps are in flight. Its deadline
  /// is the caller's to set: times are not known here.
  std::optional<ScheduledStep> schedule();
  /// A step without chunks: the world shows that it lives. Carries the ends. REQUIRES: num_steps_in_flight() == 0.
  parallel::StepPlan probe();
  /// Takes the answer of the oldest step in flight. Throws Error{kCorrupt} when it answers another step or other
  /// sequences.
  CompletedStep complete(const parallel::StepResult& result);
  /// Every sequence is back in the queue with the tokens it has, nothing is in flight and no block is known: a new
  /// world starts empty. A lost world is only a preemption of all. Sequences that cannot fit the new limits are removed
  /// and returned.
  std::vector<uint64_t> requeue_all(const SchedulerLimits& limits);

  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int num_steps_in_flight() const { return static_cast<int>(in_flight_.size()); }
  int64_t num_kv_blocks() const { return pool_.num_blocks(); }
  int64_t num_used_kv_blocks() const { return pool_.num_used(); }
  const SchedulerStats& stats() const { return stats_; }
  const SchedulerLimits& limits() const { return limits_; }
  /// The history of a sequence that is still known.
  std::span<const int32_t> tokens_of(uint64_t id) const;

  /// CHECKs every invariant between sequences, blocks and steps in flight. For tests and the idle engine.
  void check_integrity() const;

 private:
  struct ChunkInFlight {
    uint64_t id;
    uint32_t incarnation;
    int32_t end;  // position after its last token
    parallel::Sample sample;
  };
  struct StepInFlight {
    uint64_t step;
    std::vector<ChunkInFlight> chunks;
  };
  enum class InFlight : uint8_t {
    kLeaveAlone,
    kChain
  };             // may a decode row follow one that a very recent step still computes?
  struct Draft;  // the step being formed

  // plan_step.cc: forming a step.
  void plan_decode(Draft& draft, int max_rows, InFlight in_flight);
  void plan_prefill(Draft& draft);
  void plan_admissions(Draft& draft);
  bool admit(Draft& draft, SequenceState& sequence);
  void add_chunk(Draft& draft, SequenceState& sequence, int32_t num_tokens, std::vector<int32_t> new_blocks);
  bool make_room(const Draft& draft, SequenceState& sequence);
  SequenceState* victim_for_admission(const Draft& draft, const SequenceState& sequence) const;
  bool is_held(const SequenceState& sequence) const;
  bool may_admit(const SequenceState& sequence) const;
  bool is_urgent_waiting() const;
  int decode_rows_per_step() const;
  int64_t unplanned_prefill_tokens() const;

  // scheduler.cc: life of a sequence.
  void preempt(SequenceState& sequence);
  void requeue(SequenceState& sequence);
  void release_blocks(SequenceState& sequence);
  void publish_blocks(SequenceState& sequence);
  void check_sequence(const SequenceState& sequence) const;

  SchedulerLimits limits_;
  BlockPool pool_;
  std::unordered_map<uint64_t, SequenceState> sequences_;
  std::vector<SequenceState*> running_;  // in no order
  std::map<ServiceRank, SequenceState*> waiting_;
  std::deque<StepInFlight> in_flight_;  // oldest first
  std::vector<uint64_t> ends_;          // for the next plan
  uint64_t next_step_ = 1;
  SchedulerStats stats_;
};

}  // namespace chorale::coordinator
