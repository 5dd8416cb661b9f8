// A World for tests of the engine: answers with the oracle's tokens at once, or only when the test says so; can be
// lost, can lie.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "coordinator/world.h"
#include "tests/support/oracle_world.h"

namespace chorale::test {

/// A plan for a small world of `pp` stages.
parallel::ClusterPlan scripted_plan(int pp = 1);

/// What the test moves while the engine owns the world. Thread: any.
class WorldScript {
 public:
  enum class Answers : uint8_t { kAtOnce, kHeld };
  explicit WorldScript(Answers answers = Answers::kAtOnce) : answers_(answers) {}

  void hold() { set(Answers::kHeld); }
  void release() { set(Answers::kAtOnce); }
  /// While held: answers `count` more steps.
  void allow(int count);
  void lose(std::string reason);
  /// The next answer names a wrong step.
  void lie();
  /// Waits until `count` plans were sent (probes included); false after 10 s.
  bool wait_for_plans(int count);
  int num_plans();
  bool is_stopped();

 private:
  friend class ScriptedWorld;
  void set(Answers answers);

  std::mutex mutex_;
  std::condition_variable changed_;
  Answers answers_;
  std::deque<parallel::StepPlan> unanswered_;
  std::optional<std::string> lost_;
  int num_allowed_ = 0;
  bool lies_ = false;
  bool was_woken_ = false;
  bool is_stopped_ = false;
  int num_plans_ = 0;
};

class ScriptedWorld : public coordinator::World {
 public:
  ScriptedWorld(parallel::ClusterPlan plan, std::shared_ptr<WorldScript> script)
      : plan_(std::move(plan)), script_(std::move(script)), oracle_(plan_.num_kv_blocks) {}
  const parallel::ClusterPlan& plan() const override { return plan_; }
  void submit(const parallel::StepPlan& plan) override;
  void take(std::vector<coordinator::WorldEvent>& events, Deadline deadline) override;
  void wake() override;
  void stop(Deadline deadline) override;

 private:
  const parallel::ClusterPlan plan_;
  const std::shared_ptr<WorldScript> script_;
  OracleWorld oracle_;  // engine thread only
};

}  // namespace chorale::test
