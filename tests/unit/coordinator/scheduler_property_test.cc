#include <algorithm>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "tests/unit/coordinator/scheduler_bench.h"

namespace chorale::coordinator {
namespace {

/// Random arrivals, stops, cancels, pauses and lost worlds under random limits: nobody's answer may depend on any of
/// it.
class RandomLife {
 public:
  explicit RandomLife(uint32_t seed) : random_(seed), bench_(random_limits()) {}

  void run() {
    const int num_jobs = 40;
    int added = 0;
    while (added < num_jobs || bench_.scheduler.num_running() + bench_.scheduler.num_waiting() > 0) {
      ++num_turns_;
      ASSERT_LT(num_turns_, 60000) << "somebody starves";
      if (added < num_jobs && chance(8)) added += add_job();
      if (chance(60)) cancel_one();
      if (chance(20)) pause_one();
      if (chance(4)) resume_one();
      if (chance(400)) bench_.replace_world(bench_.scheduler.limits());
      turn();
      bench_.scheduler.check_integrity();
    }
    EXPECT_EQ(bench_.scheduler.num_used_kv_blocks(), 0);
    for (const auto& [id, work] : bench_.works) check_answer(id, work);
  }
  const SchedulerStats& stats() const { return bench_.scheduler.stats(); }

 private:
  int pick(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }
  bool chance(int one_in) { return pick(1, one_in) == 1; }

  SchedulerLimits random_limits() {
    SchedulerLimits limits;
    limits.epoch = 1;
    limits.num_kv_blocks = pick(8, 40);
    limits.max_model_len = 128;
    limits.max_num_seqs = pick(1, 10);
    limits.max_num_batched_tokens = chance(3) ? pick(1, 4) : pick(4, 64);
    limits.num_stages = pick(1, 4);
    limits.max_steps_in_flight = pick(1, limits.num_stages + 1);
    limits.policy = chance(3) ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
    limits.prefix_caching = chance(4) ? PrefixCaching::kOff : PrefixCaching::kOn;
    return limits;
  }
  int add_job() {
    const int prompt_len = pick(1, 70);
    const int max_new = chance(12) ? 0 : pick(1, 50);
    const int family = pick(0, 2);
    const int own_tail = pick(0, prompt_len);  // the rest is a prefix shared by the family
    const int num_choices = chance(6) ? 3 : 1;
    const uint64_t leader = next_id_;
    for (int choice = 0; choice < num_choices; ++choice) {
      Work work = make_work(next_id_++, prompt_len, max_new, family * 300);
      for (int i = prompt_len - own_tail; i < prompt_len; ++i)
        work.sequence.prompt[static_cast<size_t>(i)] = pick(0, 999);
      if (choice > 0) {
        work.sequence.prompt = bench_.works[leader].sequence.prompt;
        work.sequence.leader = leader;
      }
      work.sequence.sampling.choice = static_cast<uint32_t>(choice);
      work.sequence.priority = pick(0, 2);
      work.stop_below = chance(3) ? 50 : 0;
      if (chance(10)) work.sequence.prompt_logprobs = parallel::PromptLogprobs::kYes;
      if (refusal(bench_.scheduler.limits(), prompt_len, max_new)) return 1;
      bench_.add(work);
    }
    return 1;
  }
  bool is_alive(uint64_t id) const {
    return bench_.works.count(id) > 0 && std::ranges::find(bench_.finished, id) == bench_.finished.end() &&
           cancelled_.count(id) == 0;
  }
  void cancel_one() {
    const auto id = static_cast<uint64_t>(pick(1, static_cast<int>(next_id_)));
    if (!is_alive(id)) return;
    bench_.scheduler.remove(id);
    cancelled_[id] = true;
  }
  void pause_one() {
    const auto id = static_cast<uint64_t>(pick(1, static_cast<int>(next_id_)));
    bench_.scheduler.set_paused(id, Pause::kYes);
    paused_.push_back(id);
  }
  void resume_one() {
    if (paused_.empty()) return;
    bench_.scheduler.set_paused(paused_.back(), Pause::kNo);
    paused_.pop_back();
  }
  void turn() {
    const int num_plans = pick(0, 3);
    for (int i = 0; i < num_plans; ++i) bench_.plan();
    const int num_answers = pick(0, 2);
    for (int i = 0; i < num_answers; ++i) bench_.answer();
  }
  void check_answer(uint64_t id, const Work& work) {
    std::vector<int32_t> expected = reference_answer(work);
    if (cancelled_.count(id) > 0) expected.resize(std::min(expected.size(), bench_.answers[id].size()));
    ASSERT_EQ(bench_.answers[id], expected) << "sequence " << id;
  }

  std::mt19937 random_;
  SchedulerBench bench_;
  uint64_t next_id_ = 1;
  std::map<uint64_t, bool> cancelled_;
  std::vector<uint64_t> paused_;
  int num_turns_ = 0;
};

TEST(Scheduler, NoAnswerDependsOnBudgetsBlocksDepthCancelsPreemptionsOrLostWorlds) {
  SchedulerStats total;
  for (uint32_t seed = 1; seed <= 600; ++seed) {
    SCOPED_TRACE(seed);
    RandomLife life(seed);
    life.run();
    if (HasFatalFailure()) return;
    total.num_preemptions += life.stats().num_preemptions;
    total.prefix_hits_tokens += life.stats().prefix_hits_tokens;
  }
  // The lives were as rough as they were meant to be.
  EXPECT_GT(total.num_preemptions, 1000U);
  EXPECT_GT(total.prefix_hits_tokens, 10000U);
}

}  // namespace
}  // namespace chorale::coordinator
