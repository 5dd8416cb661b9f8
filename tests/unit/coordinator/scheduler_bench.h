// A scheduler driven by the oracle's world, with plans that stay unanswered until the test says so.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "coordinator/schedule/scheduler.h"
#include "tests/support/oracle_world.h"

namespace chorale::coordinator {

struct Work {
  NewSequence sequence;
  int32_t stop_below = 0;  // a generated token below this ends it, as an EOS would
};

inline std::vector<int32_t> reference_answer(const Work& work) {
  std::vector<int32_t> history = work.sequence.prompt;
  std::vector<int32_t> answer;
  while (static_cast<int32_t>(answer.size()) < work.sequence.max_new_tokens) {
    answer.push_back(test::oracle_token(history, work.sequence.sampling.seed, work.sequence.sampling.choice));
    history.push_back(answer.back());
    if (answer.back() < work.stop_below) break;
  }
  return answer;
}

/// Scheduler and oracle world, with plans that stay unanswered until `answer` is called.
class SchedulerBench {
 public:
  explicit SchedulerBench(const SchedulerLimits& limits) : scheduler(limits), world_(limits.num_kv_blocks) {}

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
    world_ = test::OracleWorld(limits.num_kv_blocks);
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
  test::OracleWorld world_;
};

inline Work make_work(uint64_t id, int prompt_len, int max_new, int32_t first_token = 1) {
  Work work;
  work.sequence.id = id;
  for (int i = 0; i < prompt_len; ++i) work.sequence.prompt.push_back(first_token + i);
  work.sequence.max_new_tokens = max_new;
  work.sequence.sampling.seed = id;
  return work;
}

}  // namespace chorale::coordinator
