#include "tests/support/scripted_world.h"

#include <algorithm>
#include <utility>

namespace chorale::test {

parallel::ClusterPlan scripted_plan(int pp) {
  parallel::ClusterPlan plan;
  plan.epoch = 7;
  plan.config.num_layers = pp;
  plan.config.vocab_size = kOracleVocab;
  plan.layout.pp = pp;
  plan.num_kv_blocks = 128;
  plan.max_model_len = 512;
  plan.max_num_seqs = 16;
  plan.max_num_batched_tokens = 256;
  return plan;
}

void WorldScript::set(Answers answers) {
  std::lock_guard lock(mutex_);
  answers_ = answers;
  changed_.notify_all();
}

void WorldScript::allow(int count) {
  std::lock_guard lock(mutex_);
  num_allowed_ += count;
  changed_.notify_all();
}

void WorldScript::lose(std::string reason) {
  std::lock_guard lock(mutex_);
  lost_ = std::move(reason);
  changed_.notify_all();
}

void WorldScript::lie() {
  std::lock_guard lock(mutex_);
  lies_ = true;
}

bool WorldScript::wait_for_plans(int count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return num_plans_ >= count; });
}

int WorldScript::num_plans() {
  std::lock_guard lock(mutex_);
  return num_plans_;
}

bool WorldScript::is_stopped() {
  std::lock_guard lock(mutex_);
  return is_stopped_;
}

void ScriptedWorld::submit(const parallel::StepPlan& plan) {
  parallel::validate(plan, plan_.num_kv_blocks, plan_.max_model_len, plan_.max_num_batched_tokens);
  std::lock_guard lock(script_->mutex_);
  script_->unanswered_.push_back(plan);
  ++script_->num_plans_;
  script_->changed_.notify_all();
}

void ScriptedWorld::take(std::vector<coordinator::WorldEvent>& events, Deadline deadline) {
  WorldScript& script = *script_;
  std::unique_lock lock(script.mutex_);
  const auto has_answer = [&] {
    return (script.answers_ == WorldScript::Answers::kAtOnce || script.num_allowed_ > 0) && !script.unanswered_.empty();
  };
  script.changed_.wait_until(lock, deadline.when(), [&] { return script.lost_ || script.was_woken_ || has_answer(); });
  script.was_woken_ = false;
  if (script.lost_) {
    events.emplace_back(coordinator::WorldLost{*script.lost_});
    return;
  }
  while (has_answer()) {
    parallel::StepResult result = oracle_.run(script.unanswered_.front());
    script.unanswered_.pop_front();
    script.num_allowed_ = std::max(0, script.num_allowed_ - 1);
    if (std::exchange(script.lies_, false)) result.step += 100;
    events.emplace_back(parallel::StageReport{result.epoch, result.step, 0, 1000, 200, 30});
    events.emplace_back(std::move(result));
  }
}

void ScriptedWorld::wake() {
  std::lock_guard lock(script_->mutex_);
  script_->was_woken_ = true;
  script_->changed_.notify_all();
}

void ScriptedWorld::stop(Deadline /*deadline*/) {
  std::lock_guard lock(script_->mutex_);
  script_->is_stopped_ = true;
}

}  // namespace chorale::test
