// The control loop against a real control link, ranks as threads: join, plan, steps, reports, stop; failures are told
// to the coordinator.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "comm/control_link.h"
#include "tests/support/shared_data.h"
#include "tests/support/temporary_folder.h"
#include "tests/unit/worker/thread_world.h"
#include "worker/plan_recording.h"
#include "worker/step_watchdog.h"
#include "worker/worker.h"

namespace chorale::worker::test {
namespace {
namespace fs = std::filesystem;
using comm::LinkEvent;
using comm::MessageType;

constexpr std::chrono::seconds kPatience{30};

/// Workers on threads, and the coordinator's end of their links.
class Cluster {
 public:
  Cluster(int num_ranks, const std::string& record_path) : server_(server_options(num_ranks)) {
    server_.start();
    auto worlds = comm::make_threads(num_ranks);
    for (int rank = 0; rank < num_ranks; ++rank)
      threads_.emplace_back(
          [this, rank, num_ranks, record_path, world = std::move(worlds[static_cast<size_t>(rank)])]() mutable {
            WorkerOptions options{.control_port = server_.port(), .secret = "test", .record_path = record_path};
            comm::WorldMap map{.rank = rank,
                               .size = num_ranks,
                               .host_name = "here",
                               .host_of = std::vector<int>(static_cast<size_t>(num_ranks), 0)};
            try {
              run_worker(options, map, [&](const comm::WorldOptions&) { return std::move(world); });
            } catch (const Error&) {
              ++num_failed_;
            }
          });
  }
  ~Cluster() {
    server_.broadcast(MessageType::kStop, {});
    for (std::thread& thread : threads_) thread.join();
  }
  comm::ControlServer& server() { return server_; }
  int num_failed() const { return num_failed_; }

  /// The payload of the next message of `type`, whoever sends it.
  Bytes await(MessageType type) {
    for (;;) {
      std::optional<LinkEvent> event = server_.wait(Deadline::after(kPatience));
      if (!event) fail(ErrorCode::kDeadlineExceeded, "no {} came", to_string(type));
      if (event->kind == LinkEvent::Kind::kJoined && type == MessageType::kHello) return event->payload;
      if (event->kind == LinkEvent::Kind::kMessage && event->type == type) return event->payload;
    }
  }

 private:
  static comm::ControlServerOptions server_options(int num_ranks) {
    comm::ControlServerOptions options;
    options.secret = "test";
    options.num_ranks = num_ranks;
    return options;
  }
  comm::ControlServer server_;
  std::vector<std::thread> threads_;
  std::atomic<int> num_failed_{0};
};

TEST(Worker, RunsPlansFromTheLinkAndRecordsThem) {
  SHARED_OR_SKIP(model, "goldens/models/llama2-mha");
  const std::vector<Job> jobs{{.prompt = {36}, .num_tokens = 6}, {.prompt = {35, 204, 129, 152, 155}, .num_tokens = 4}};
  ThreadWorld direct(model, {.tp = 2, .pp = 2});
  const std::vector<Answer> wanted = direct.run(jobs);
  parallel::ClusterPlan plan = direct.plan();
  plan.model_path = model.string();
  const std::vector<parallel::StepPlan> steps = Planner(jobs, {}, plan.num_kv_blocks).make();
  const chorale::test::TemporaryFolder folder;
  const fs::path recording = folder.path() / "plans.bin";

  std::vector<Answer> got(jobs.size());
  {
    Cluster cluster(4, recording.string());
    for (int rank = 0; rank < 4; ++rank) {
      const auto hello = parallel::WorkerHello::decode(cluster.await(MessageType::kHello));
      EXPECT_EQ(hello.num_ranks, 4);
      EXPECT_EQ(hello.ranks_on_host, 4);
      EXPECT_GT(hello.free_memory_bytes, 0u);
    }
    cluster.server().broadcast(MessageType::kClusterPlan, plan.encode());
    for (int rank = 0; rank < 4; ++rank) {
      const auto ready = parallel::WorkerReady::decode(cluster.await(MessageType::kReady));
      EXPECT_GT(ready.copied_bytes, 0u);
      EXPECT_GT(ready.kv_bytes, 0u);
    }
    for (const parallel::StepPlan& step : steps) cluster.server().broadcast(MessageType::kStepPlan, step.encode());
    for (const parallel::StepPlan& step : steps) {
      const auto result = parallel::StepResult::decode(cluster.await(MessageType::kStepResult));
      EXPECT_EQ(result.step, step.step);
      for (const parallel::SampledToken& token : result.sampled) {
        got[token.sequence_id - 1].tokens.push_back(token.token.token_id);
        got[token.sequence_id - 1].logprobs.push_back(token.token.logprob);
      }
    }
    EXPECT_EQ(cluster.num_failed(), 0);
  }
  EXPECT_EQ(got, wanted);

  const PlanRecording read = read_recording(recording);
  EXPECT_EQ(read.cluster.encode(), plan.encode());
  ASSERT_EQ(read.steps.size(), steps.size());
  for (size_t i = 0; i < steps.size(); ++i) EXPECT_EQ(read.steps[i].encode(), steps[i].encode());
  EXPECT_EQ(read.torn, "");
}

TEST(Worker, TellsTheCoordinatorWhyItCannotStart) {
  SHARED_OR_SKIP(model, "goldens/models/llama2-mha");
  ThreadWorld direct(model, {});
  parallel::ClusterPlan plan = direct.plan();
  plan.model_path = "/nowhere/model";
  Cluster cluster(1, "");
  cluster.await(MessageType::kHello);
  cluster.server().broadcast(MessageType::kClusterPlan, plan.encode());
  const auto fault = parallel::WorkerFault::decode(cluster.await(MessageType::kFault));
  EXPECT_EQ(fault.code, ErrorCode::kNotFound);
  EXPECT_NE(fault.reason.find("/nowhere/model"), std::string::npos) << fault.reason;
}

TEST(Worker, RefusesAnotherModelThanThePlanned) {
  SHARED_OR_SKIP(model, "goldens/models");
  ThreadWorld direct(model / "llama2-mha", {});
  parallel::ClusterPlan plan = direct.plan();
  plan.model_path = (model / "qwen3-yarn").string();
  EXPECT_THROW(Stage(plan, 0, 1, nullptr, [](const comm::WorldOptions&) { return comm::make_single(); }), Error);
  plan.model_path = (model / "llama2-mha").string();
  EXPECT_THROW(Stage(plan, 0, 1, open_device(DeviceKind::kEmulator, 0),
                     [](const comm::WorldOptions&) { return comm::make_single(); }),
               Error);
  EXPECT_THROW(
      Stage(plan, 0, 1, nullptr, [](const comm::WorldOptions&) { return std::move(comm::make_threads(2)[0]); }), Error);
}

TEST(StageRunner, RefusesPlansThatBreakTheProtocol) {
  SHARED_OR_SKIP(model, "goldens/models/llama2-mha");
  ThreadWorld direct(model, {});
  parallel::ClusterPlan plan = direct.plan();
  plan.model_path = model.string();
  const auto refuses = [&](const std::function<void(std::vector<parallel::StepPlan>&)>& spoil) {
    Stage stage(plan, 0, 1, nullptr, [](const comm::WorldOptions&) { return comm::make_single(); });
    const std::vector<Job> jobs{{.prompt = {1, 2, 3}, .num_tokens = 3}};
    auto steps = Planner(jobs, {}, plan.num_kv_blocks).make();
    spoil(steps);
    try {
      for (const auto& step : steps) stage.runner().run(step);
    } catch (const Error&) {
      return true;
    }
    return false;
  };
  EXPECT_FALSE(refuses([](auto&) {}));
  EXPECT_TRUE(refuses([](auto& steps) { steps[0].starts.clear(); }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[0].ends.push_back(9); }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[1].starts = steps[0].starts; }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[0].chunks[0].tokens[1] = 256; }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[0].starts[0].history[0] = -1; }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[0].chunks[0].new_blocks.clear(); }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[0].chunks[0].new_blocks[0] = 1 << 20; }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[1].chunks[0].first_position = 5; }));
  EXPECT_TRUE(refuses([](auto& steps) { steps[1].chunks[0].from_step = 7; }));
}

TEST(StepWatchdog, CallsOnlyForStepsPastTheirDeadline) {
  std::atomic<int> expired{0};
  std::string what;
  {
    StepWatchdog watchdog([&](const std::string& name) {
      what = name;
      ++expired;
      expired.notify_all();
    });
    for (int i = 0; i < 100; ++i) {
      watchdog.arm("fast step", Deadline::after(kPatience));
      watchdog.disarm();
    }
    EXPECT_EQ(expired, 0);
    watchdog.arm("slow step", Deadline::after(std::chrono::milliseconds(5)));
    expired.wait(0);
  }
  EXPECT_EQ(what, "slow step");
  EXPECT_EQ(expired, 1);
}

}  // namespace
}  // namespace chorale::worker::test
