#include "coordinator/schedule/scheduler.h"

#include <gtest/gtest.h>

#include "tests/unit/coordinator/scheduler_bench.h"

namespace chorale::coordinator {
namespace {

SchedulerLimits small_limits() {
  SchedulerLimits limits;
  limits.epoch = 3;
  limits.num_kv_blocks = 64;
  limits.max_model_len = 256;
  limits.max_num_seqs = 8;
  limits.max_num_batched_tokens = 32;
  return limits;
}

TEST(Scheduler, AnswersOneJobAndReturnsItsBlocks) {
  SchedulerBench bench(small_limits());
  bench.add(make_work(1, 50, 20));
  bench.run();
  EXPECT_EQ(bench.answers[1], reference_answer(bench.works[1]));
  EXPECT_EQ(bench.scheduler.num_used_kv_blocks(), 0);
  EXPECT_EQ(bench.num_surplus, 0);  // max_tokens is known in advance
}

TEST(Scheduler, NamesTheTokenOfAStepThatIsStillInFlight) {
  SchedulerBench bench(small_limits());
  bench.add(make_work(1, 4, 8));
  ASSERT_TRUE(bench.plan());
  ASSERT_TRUE(bench.plan());
  EXPECT_FALSE(bench.plan());  // two in flight
  ASSERT_EQ(bench.last_plan.chunks.size(), 1U);
  EXPECT_TRUE(bench.last_plan.chunks[0].tokens.empty());
  EXPECT_EQ(bench.last_plan.chunks[0].from_step, 1U);
}

TEST(Scheduler, DropsTokensThatWereComputedAfterAStop) {
  SchedulerBench bench(small_limits());
  Work work = make_work(1, 4, 50);
  work.stop_below = test::kOracleVocab;  // the first token ends it
  bench.add(work);
  bench.run();
  EXPECT_EQ(bench.answers[1].size(), 1U);
  EXPECT_EQ(bench.num_surplus, 1);
}

TEST(Scheduler, MixesDecodeRowsAndPrefillChunks) {
  SchedulerBench bench(small_limits());
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
  SchedulerBench bench(limits);
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
  SchedulerBench bench(small_limits());
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
  SchedulerBench bench(small_limits());
  bench.add(make_work(1, 32, 1));
  bench.run();
  bench.add(make_work(2, 32, 1));
  bench.run();
  EXPECT_EQ(bench.admissions.back().num_cached_tokens, 16);
}

TEST(Scheduler, DoesNotShareBlocksOfAStepInFlight) {
  SchedulerBench bench(small_limits());
  bench.add(make_work(1, 32, 8));
  ASSERT_TRUE(bench.plan());
  bench.add(make_work(2, 32, 8));
  ASSERT_TRUE(bench.plan());
  ASSERT_EQ(bench.admissions.size(), 2U);
  EXPECT_EQ(bench.admissions[1].num_cached_tokens, 0);
  bench.run();
}

TEST(Scheduler, JobsWithPromptLogprobsDoNotReadTheCache) {
  SchedulerBench bench(small_limits());
  bench.add(make_work(1, 33, 1));
  bench.run();
  Work second = make_work(2, 33, 1);
  second.sequence.prompt_logprobs = parallel::PromptLogprobs::kYes;
  bench.add(second);
  bench.run();
  EXPECT_EQ(bench.admissions.back().num_cached_tokens, 0);
}

TEST(Scheduler, ChoicesOfOnePromptShareItsBlocks) {
  SchedulerBench bench(small_limits());
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
  SchedulerBench bench(limits);
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
  SchedulerBench bench(limits);
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
  SchedulerBench bench(limits);
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
  SchedulerBench bench(small_limits());
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
  SchedulerBench bench(small_limits());
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

}  // namespace
}  // namespace chorale::coordinator
