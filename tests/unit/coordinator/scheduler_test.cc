#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <deque>
#include <map>
#include <random>

#include <gtest/gtest.h>

#include "tests/support/oracle_world.h"

namespace chorale::coordinator {
namespace {

using test::oracle_token;
using test::OracleWorld;

struct Work {
  NewSequence sequence;
  int32_t stop_below = 0;  // a generated token below this ends it, as an EOS would
};

std::vector<int32_t> reference_answer(const Work& work) {
  std::vector<int32_t> history = work.sequence.prompt;
  std::vector<int32_t> answer;
  while (static_cast<int32_t>(answer.size()) < work.sequence.max_new_tokens) {
    answer.push_back(oracle_token(history, work.sequence.sampling.seed, work.sequence.sampling.choice));
    history.push_back(answer.back());
    if (answer.back() < work.stop_below) break;
  }
  return answer;
}

/// Scheduler and oracle world, with plans that stay unanswered until `answer` is called.
class Bench {
 public:
  explicit Bench(const SchedulerLimits& limits) : scheduler(limits), world_(limits.num_kv_blocks) {}

  void add(const Work& work) {
    works[work.sequence.id] = work;
    answers[work.sequence.id];
    scheduler.add(work.sequence);
  }
  bool plan() {
    auto step = scheduler.schedule();
    if (!step) return false;
    const SchedulerLimits& limits = scheduler.limits();
    parallel::validate(step->plan, limits.num_kv_blocks, limits.max_model_len, limits.max_num_batched_tokens);
    for (const Admission& admission : step->admissions) admissions.push_back(admission);
    last_plan = step->plan;
    unanswered.push_back(std::move(step->plan));
    return true;
  }
  bool answer() {
    if (unanswered.empty()) return false;
    const parallel::StepResult result = world_.run(unanswered.front());
    unanswered.pop_front();
    const CompletedStep completed = scheduler.complete(result);
    num_surplus += completed.num_surplus;
    for (size_t i : completed.accepted) take(result.sampled[i]);
    for (uint64_t id : completed.finished_prompts) finish(id);
    return true;
  }
  void finish(uint64_t id) {
    scheduler.remove(id);
    finished.push_back(id);
  }
  void replace_world(const SchedulerLimits& limits) {
    unanswered.clear();
    world_ = OracleWorld(limits.num_kv_blocks);
    EXPECT_TRUE(scheduler.requeue_all(limits).empty());
  }
  /// Plans and answers until nothing is left; fails when nothing moves.
  void run() {
    while (true) {
      while (plan()) scheduler.check_integrity();
      if (!answer()) break;
      scheduler.check_integrity();
    }
    EXPECT_EQ(scheduler.num_waiting() + scheduler.num_running(), 0) << "stuck";
  }

  Scheduler scheduler;
  std::map<uint64_t, Work> works;
  std::map<uint64_t, std::vector<int32_t>> answers;
  std::vector<uint64_t> finished;  // in order
  std::vector<Admission> admissions;
  std::deque<parallel::StepPlan> unanswered;
  parallel::StepPlan last_plan;
  int num_surplus = 0;

 private:
  void take(const parallel::SampledToken& token) {
    const uint64_t id = token.sequence_id;
    answers[id].push_back(token.token.token_id);
    const Work& work = works[id];
    if (token.token.token_id < work.stop_below ||
        static_cast<int32_t>(answers[id].size()) == work.sequence.max_new_tokens)
      finish(id);
  }
  OracleWorld world_;
};

SchedulerLimits small_limits() {
  SchedulerLimits limits;
  limits.epoch = 3;
  limits.num_kv_blocks = 64;
  limits.max_model_len = 256;
  limits.max_num_seqs = 8;
  limits.max_num_batched_tokens = 32;
  return limits;
}

Work make_work(uint64_t id, int prompt_len, int max_new, int32_t first_token = 1) {
  Work work;
  work.sequence.id = id;
  for (int i = 0; i < prompt_len; ++i) work.sequence.prompt.push_back(first_token + i);
  work.sequence.max_new_tokens = max_new;
  work.sequence.sampling.seed = id;
  return work;
}

TEST(Scheduler, AnswersOneJobAndReturnsItsBlocks) {
  Bench bench(small_limits());
  bench.add(make_work(1, 50, 20));
  bench.run();
  EXPECT_EQ(bench.answers[1], reference_answer(bench.works[1]));
  EXPECT_EQ(bench.scheduler.num_used_kv_blocks(), 0);
  EXPECT_EQ(bench.num_surplus, 0);  // max_tokens is known in advance
}

TEST(Scheduler, NamesTheTokenOfAStepThatIsStillInFlight) {
  Bench bench(small_limits());
  bench.add(make_work(1, 4, 8));
  ASSERT_TRUE(bench.plan());
  ASSERT_TRUE(bench.plan());
  EXPECT_FALSE(bench.plan());  // two in flight
  ASSERT_EQ(bench.last_plan.chunks.size(), 1U);
  EXPECT_TRUE(bench.last_plan.chunks[0].tokens.empty());
  EXPECT_EQ(bench.last_plan.chunks[0].from_step, 1U);
}

TEST(Scheduler, DropsTokensThatWereComputedAfterAStop) {
  Bench bench(small_limits());
  Work work = make_work(1, 4, 50);
  work.stop_below = test::kOracleVocab;  // the first token ends it
  bench.add(work);
  bench.run();
  EXPECT_EQ(bench.answers[1].size(), 1U);
  EXPECT_EQ(bench.num_surplus, 1);
}

TEST(Scheduler, MixesDecodeRowsAndPrefillChunks) {
  Bench bench(small_limits());
  bench.add(make_work(1, 4, 30));
  ASSERT_TRUE(bench.plan());
  bench.add(make_work(2, 100, 5, 200));
  ASSERT_TRUE(bench.plan());
  ASSERT_EQ(bench.last_plan.chunks.size(), 2U);
  EXPECT_EQ(bench.last_plan.chunks[0].num_tokens, 1);
  EXPECT_EQ(bench.last_plan.chunks[1].num_tokens, 31);
  EXPECT_EQ(bench.last_plan.chunks[1].sample, parallel::Sample::kNo);
  bench.run();
}

TEST(Scheduler, SplitsRunningSequencesIntoBalancedMicroBatches) {
  SchedulerLimits limits = small_limits();
  limits.num_stages = 2;
  limits.max_steps_in_flight = 3;
  limits.max_num_batched_tokens = 256;
  Bench bench(limits);
  for (uint64_t id = 1; id <= 8; ++id) bench.add(make_work(id, 4, 60, static_cast<int32_t>(id)));
  for (int i = 0; i < 20; ++i) {
    while (bench.plan()) {
    }
    bench.answer();
  }
  for (const auto& plan : bench.unanswered) EXPECT_EQ(plan.chunks.size(), 4U);
  bench.run();
}

TEST(Scheduler, ASecondJobHitsTheFirstOnesPromptAndAnswer) {
  Bench bench(small_limits());
  Work first = make_work(1, 32, 33);
  bench.add(first);
  bench.run();
  Work second = make_work(2, 0, 4);
  second.sequence.prompt = first.sequence.prompt;
  second.sequence.prompt.insert(second.sequence.prompt.end(), bench.answers[1].begin(), bench.answers[1].end());
  bench.add(second);
  bench.run();
  // 65 tokens are known, 64 were computed, all four blocks are full, and the last token is computed again.
  EXPECT_EQ(bench.admissions.back().num_cached_tokens, 64);
  EXPECT_EQ(bench.answers[2], reference_answer(second));
}

TEST(Scheduler, AlwaysComputesTheLastPromptToken) {
  Bench bench(small_limits());
  bench.add(make_work(1, 32, 1));
  bench.run();
  bench.add(make_work(2, 32, 1));
  bench.run();
  EXPECT_EQ(bench.admissions.back().num_cached_tokens, 16);
}

TEST(Scheduler, DoesNotShareBlocksOfAStepInFlight) {
  Bench bench(small_limits());
  bench.add(make_work(1, 32, 8));
  ASSERT_TRUE(bench.plan());
  bench.add(make_work(2, 32, 8));
  ASSERT_TRUE(bench.plan());
  ASSERT_EQ(bench.admissions.size(), 2U);
  EXPECT_EQ(bench.admissions[1].num_cached_tokens, 0);
  bench.run();
}

TEST(Scheduler, JobsWithPromptLogprobsDoNotReadTheCache) {
  Bench bench(small_limits());
  bench.add(make_work(1, 33, 1));
  bench.run();
  Work second = make_work(2, 33, 1);
  second.sequence.prompt_logprobs = parallel::PromptLogprobs::kYes;
  bench.add(second);
  bench.run();
  EXPECT_EQ(bench.admissions.back().num_cached_tokens, 0);
}

TEST(Scheduler, ChoicesOfOnePromptShareItsBlocks) {
  Bench bench(small_limits());
  for (uint64_t id = 1; id <= 4; ++id) {
    Work work = make_work(id, 40, 4);
    work.sequence.sampling.choice = static_cast<uint32_t>(id - 1);
    if (id > 1) work.sequence.leader = 1;
    bench.add(work);
  }
  bench.run();
  ASSERT_EQ(bench.admissions.size(), 4U);
  for (size_t i = 1; i < 4; ++i) EXPECT_EQ(bench.admissions[i].num_cached_tokens, 32);
  for (auto& [id, work] : bench.works) EXPECT_EQ(bench.answers[id], reference_answer(work));
}

TEST(Scheduler, PreemptsTheLatestWhenBlocksRunOut) {
  SchedulerLimits limits = small_limits();
  limits.num_kv_blocks = 6;
  limits.max_model_len = 96;
  Bench bench(limits);
  bench.add(make_work(1, 30, 40));
  bench.add(make_work(2, 30, 40, 300));
  bench.run();
  EXPECT_GT(bench.scheduler.stats().num_preemptions, 0U);
  EXPECT_EQ(bench.finished, (std::vector<uint64_t>{1, 2}));
  for (auto& [id, work] : bench.works) EXPECT_EQ(bench.answers[id], reference_answer(work));
}

TEST(Scheduler, ServesSmallerPrioritiesFirstAndPreemptsForThem) {
  SchedulerLimits limits = small_limits();
  limits.max_num_seqs = 1;
  limits.policy = SchedulingPolicy::kPriority;
  Bench bench(limits);
  bench.add(make_work(1, 8, 30));
  bench.plan();
  for (uint64_t id = 2; id <= 4; ++id) {
    Work work = make_work(id, 8, 3, 500);
    work.sequence.priority = id == 4 ? -1 : 2;
    bench.add(work);
  }
  bench.run();
  EXPECT_EQ(bench.finished, (std::vector<uint64_t>{4, 1, 2, 3}));
}

TEST(Scheduler, APausedSequenceWaitsAndGivesItsPlaceAway) {
  SchedulerLimits limits = small_limits();
  limits.max_num_seqs = 1;
  Bench bench(limits);
  bench.add(make_work(1, 8, 30));
  bench.plan();
  bench.scheduler.set_paused(1, Pause::kYes);
  bench.add(make_work(2, 8, 5, 500));
  while (bench.plan() || bench.answer()) bench.scheduler.check_integrity();
  EXPECT_EQ(bench.finished, (std::vector<uint64_t>{2}));
  bench.scheduler.set_paused(1, Pause::kNo);
  bench.run();
  EXPECT_EQ(bench.answers[1], reference_answer(bench.works[1]));
}

TEST(Scheduler, RefusesWhatCanNeverFitAndSaysBothNumbers) {
  SchedulerLimits limits = small_limits();
  limits.num_kv_blocks = 4;
  EXPECT_FALSE(refusal(limits, 32, 32));
  const auto blocks = refusal(limits, 33, 32);
  ASSERT_TRUE(blocks);
  EXPECT_NE(blocks->message.find("need 5 KV blocks, but the cluster has 4"), std::string::npos) << blocks->message;
  const auto length = refusal(limits, 200, 57);
  ASSERT_TRUE(length);
  EXPECT_NE(length->message.find("257"), std::string::npos);
  EXPECT_NE(length->message.find("256"), std::string::npos);
}

TEST(Scheduler, RejectsAnswersToOtherSteps) {
  Bench bench(small_limits());
  bench.add(make_work(1, 4, 2));
  bench.plan();
  parallel::StepResult result;
  result.epoch = 3;
  result.step = 2;
  EXPECT_THROW(bench.scheduler.complete(result), Error);
  result.step = 1;
  EXPECT_THROW(bench.scheduler.complete(result), Error);  // lacks the token
}

TEST(Scheduler, AnEmptyStepAsksAnIdleWorldAndCarriesTheEnds) {
  Bench bench(small_limits());
  bench.add(make_work(1, 4, 1));
  bench.run();
  const parallel::StepPlan probe = bench.scheduler.probe();
  EXPECT_EQ(probe.ends, (std::vector<uint64_t>{1}));
  EXPECT_TRUE(probe.chunks.empty());
  parallel::StepResult result;
  result.epoch = probe.epoch;
  result.step = probe.step;
  bench.scheduler.complete(result);
  bench.scheduler.check_integrity();
}

/// Random arrivals, stops, cancels, pauses and lost worlds under random limits: nobody's answer may depend on any of it.
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
      for (int i = prompt_len - own_tail; i < prompt_len; ++i) work.sequence.prompt[static_cast<size_t>(i)] = pick(0, 999);
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
    return bench_.works.count(id) > 0 && std::ranges::find(bench_.finished, id) == bench_.finished.end() && cancelled_.count(id) == 0;
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
  Bench bench_;
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
