// Steps in flight on one rank with a device: the host gives it the next step without waiting for the one before.
#include <gtest/gtest.h>

#include <thread>

#include "tests/unit/worker/device_test_support.h"
#include "tests/unit/worker/emulator_gate.h"
#include "tests/unit/worker/synthetic_model.h"
#include "tests/unit/worker/thread_world.h"

namespace chorale::worker::test {
namespace {

constexpr std::chrono::seconds kPatience{60};

/// One rank that is the world.
class Rank {
 public:
  Rank(const SyntheticModel& model, parallel::CudaGraphs graphs, WorldOptions options = {})
      : plan_([&] {
          options.compute = DType::kBF16;
          options.device = test_device_kind();
          options.cuda_graphs = graphs;
          return ThreadWorld(model.path(), options).plan();
        }()),
        device_(open_device(test_device_kind(), 0)),
        stream_(device_->make_stream()),
        runner_(plan_, 0, *world_, *world_,
                load_weights(parallel::Checkpoint::open(model.path()),
                             {plan_.config, plan_.layout, 0, plan_.numerics.compute, {device_.get(), stream_.get()}},
                             pool_),
                pool_, {device_.get(), stream_.get()}) {
    set_compute_thread_fp_state();
  }
  const parallel::ClusterPlan& plan() const { return plan_; }
  StageRunner& runner() { return runner_; }
  Device& device() { return *device_; }
  Stream& stream() { return *stream_; }

 private:
  const parallel::ClusterPlan plan_;
  std::unique_ptr<comm::Communicator> world_ = comm::make_single();
  ThreadPool pool_{{.num_threads = 1, .spin_us = 0}};
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  StageRunner runner_;
};

std::vector<std::pair<uint64_t, int32_t>> ids_of(const StepOutcome& outcome) {
  std::vector<std::pair<uint64_t, int32_t>> ids;
  for (const parallel::SampledToken& token : outcome.result->sampled)
    ids.emplace_back(token.sequence_id, token.token.token_id);
  return ids;
}

class CudaSteps : public testing::TestWithParam<parallel::CudaGraphs> {
 protected:
  const SyntheticModel model_{
      {.vocab = 1100, .hidden = 48, .intermediate = 96, .heads = 4, .kv_heads = 2, .head_dim = 64}};
  const std::vector<Job> jobs_{
      {.prompt = {5, 6, 7}, .num_tokens = 8},
      {.prompt = {9}, .num_tokens = 8, .sampling = {.temperature = 1.0f, .presence_penalty = 0.5f, .seed = 3}}};
};

// The second step's tokens are what the first samples, and nothing of the first has run when both are enqueued.
TEST_P(CudaSteps, AreEnqueuedWhileTheDeviceIsHeldBack) {
  if (test_device_kind() != DeviceKind::kEmulator) GTEST_SKIP() << "holds back a stream of the emulator";
  Rank wanted(model_, parallel::CudaGraphs::kOff), rank(model_, GetParam());
  const std::vector<parallel::StepPlan> plans = Planner(jobs_, {}, rank.plan().num_kv_blocks).make();
  ASSERT_EQ(rank.runner().max_in_flight(), 2);
  for (size_t i = 0; i + 1 < plans.size(); i += 2) {
    Gate gate(rank.device());
    gate.hold_back(rank.stream());
    rank.runner().enqueue(plans[i]);
    rank.runner().enqueue(plans[i + 1]);
    EXPECT_FALSE(rank.runner().is_done());
    gate.open();
    for (size_t k : {i, i + 1}) EXPECT_EQ(ids_of(rank.runner().finish()), ids_of(wanted.runner().run(plans[k])));
  }
  const uint64_t num_decodes = plans.size() / 2 * 2 - 1;  // all but the first
  EXPECT_EQ(rank.runner().num_replayed(), GetParam() == parallel::CudaGraphs::kOn ? num_decodes : 0);
}

// More than 1 MiB of block tables a step, of which two are in flight: the host prepares the next without waiting.
TEST(CudaStaging, HasRoomForTheLargestGraphsOfTwoStepsInFlight) {
  if (test_device_kind() != DeviceKind::kEmulator) GTEST_SKIP() << "holds back a stream of the emulator";
  constexpr int kSequences = 136;
  const SyntheticModel model(
      {.vocab = 64, .hidden = 32, .intermediate = 32, .layers = 1, .heads = 2, .kv_heads = 1, .head_dim = 16});
  Rank rank(model, parallel::CudaGraphs::kOn, {.max_model_len = 32768, .max_num_seqs = kSequences});
  ASSERT_GT(DecodeGraphs::input_bytes(kSequences, 2048), size_t{1} << 20);
  std::vector<Job> jobs;
  for (int i = 0; i < kSequences; ++i) jobs.push_back({.prompt = {i % 60}, .num_tokens = 11});
  const std::vector<parallel::StepPlan> plans = Planner(jobs, {}, rank.plan().num_kv_blocks).make();
  rank.runner().run(plans[0]);
  for (size_t i = 1; i + 1 < plans.size(); i += 2) {
    Gate gate(rank.device());
    gate.hold_back(rank.stream());
    rank.runner().enqueue(plans[i]);
    rank.runner().enqueue(plans[i + 1]);
    gate.open();
    rank.runner().finish();
    rank.runner().finish();
  }
  EXPECT_EQ(rank.runner().num_replayed(), 11u);
  EXPECT_EQ(rank.runner().num_staging_waits(), 0u);
}

TEST_P(CudaSteps, NameTheStepWhoseDeadlinePassed) {
  if (test_device_kind() != DeviceKind::kEmulator) GTEST_SKIP() << "holds back a stream of the emulator";
  Rank rank(model_, GetParam());
  std::vector<parallel::StepPlan> plans = Planner(jobs_, {}, rank.plan().num_kv_blocks).make();
  plans[0].deadline_ms = 20;
  Gate gate(rank.device());
  gate.hold_back(rank.stream());
  rank.runner().enqueue(plans[0]);
  const Deadline patience = Deadline::after(kPatience);
  while (!rank.runner().is_done() && !patience.expired()) std::this_thread::yield();
  try {
    rank.runner().finish();
    FAIL() << "it did not throw";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
    EXPECT_NE(std::string(error.what()).find("step 1: "), std::string::npos) << error.what();
  }
}

TEST_P(CudaSteps, ReportHowLongTheDeviceHadNothingToDo) {
  Rank rank(model_, GetParam());
  std::optional<Deadline::Clock::time_point> answered;
  for (const parallel::StepPlan& plan : Planner(jobs_, {}, rank.plan().num_kv_blocks).make()) {
    const auto given = Deadline::Clock::now();
    rank.runner().enqueue(plan);
    const uint32_t gap = rank.runner().finish().report->gap_ns;
    const auto now = Deadline::Clock::now();
    if (!answered) {
      EXPECT_EQ(gap, parallel::StageReport::kNoGap);
    } else {  // nobody gave it work between the answer and the next step
      EXPECT_NE(gap, parallel::StageReport::kNoGap);
      constexpr int64_t kClocksDiffer = 5000;
      EXPECT_GE(gap + kClocksDiffer, std::chrono::nanoseconds(given - *answered).count());
    }
    answered = now;
  }
}

// A gap begins where the step before ends: neither that step nor what held it back counts.
TEST_P(CudaSteps, ReportGapsBetweenStepsThatWereGivenTogether) {
  if (test_device_kind() != DeviceKind::kEmulator) GTEST_SKIP() << "holds back a stream of the emulator";
  Rank rank(model_, GetParam());
  const std::vector<parallel::StepPlan> plans = Planner(jobs_, {}, rank.plan().num_kv_blocks).make();
  const auto given = Deadline::Clock::now();
  {
    Gate gate(rank.device());
    gate.hold_back(rank.stream());
    for (size_t i : {0, 1}) rank.runner().enqueue(plans[i]);
  }
  std::vector<parallel::StageReport> reports;
  for (int i = 0; i < 2; ++i) reports.push_back(*rank.runner().finish().report);
  const std::chrono::duration<double, std::nano> all = Deadline::Clock::now() - given;
  EXPECT_LE(reports[1].gap_ns, all.count() - 1e3 * (reports[0].compute_us - 1 + reports[1].compute_us - 1));
  for (const parallel::StepPlan& plan : std::span(plans).subspan(2)) rank.runner().run(plan);  // events are used again
}

TEST_P(CudaSteps, ReportTheTimeOfTheDevice) {
  Rank rank(model_, GetParam());
  for (const parallel::StepPlan& plan : Planner(jobs_, {}, rank.plan().num_kv_blocks).make()) {
    const auto start = Deadline::Clock::now();
    const StepOutcome outcome = rank.runner().run(plan);
    const auto most = std::chrono::duration_cast<std::chrono::microseconds>(Deadline::Clock::now() - start);
    ASSERT_TRUE(outcome.report.has_value());
    EXPECT_GT(outcome.report->compute_us, 0u);
    EXPECT_LE(outcome.report->compute_us, most.count());
    EXPECT_EQ(outcome.report->comm_us + outcome.report->wait_us, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Graphs, CudaSteps, testing::Values(parallel::CudaGraphs::kOff, parallel::CudaGraphs::kOn),
                         [](const auto& param) { return param.param == parallel::CudaGraphs::kOn ? "on" : "off"; });

}  // namespace
}  // namespace chorale::worker::test
