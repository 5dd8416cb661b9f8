#include "coordinator/control_world.h"

#include <condition_variable>
#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/control_link.h"
#include "coordinator/engine.h"
#include "coordinator/make_cluster_plan.h"
#include "tests/support/oracle_world.h"
#include "tests/support/toy_model.h"

namespace chorale::coordinator {
namespace {

using namespace std::chrono_literals;
using comm::ControlClient;
using comm::ControlServer;
using comm::MessageType;
using test::oracle_token;

constexpr const char* kSecret = "0123456789abcdef0123456789abcdef";

ClusterRequest two_stages() {
  ClusterRequest request;
  request.model_path = "m";
  request.layout.pp = 2;
  request.max_model_len = 256;
  request.max_num_seqs = 4;
  return request;
}

std::unique_ptr<ControlServer> make_server() {
  comm::ControlServerOptions options;
  options.secret = kSecret;
  options.num_ranks = 2;
  return std::make_unique<ControlServer>(options);
}

/// A rank that speaks the protocol over TCP and computes with the oracle. The last one answers.
class FakeWorker {
 public:
  enum class Once { kAnswers, kFloods };
  /// kFloods: once its weights are loaded it sends what nobody asked for, and goes on until its link is lost.
  FakeWorker(int port, int rank, parallel::WorkerHello hello, Once ready = Once::kAnswers)
      : rank_(rank), ready_(ready) {
    comm::ControlClientOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    options.secret = kSecret;
    options.rank = rank;
    options.hello = hello.encode();
    thread_ = std::thread([this, options] {
      run(options);
      has_ended_ = true;
      has_ended_.notify_all();
    });
  }
  ~FakeWorker() { thread_.join(); }
  /// Sends a fault instead of the answer to step `step`.
  void fail_at(uint64_t step) { fail_at_ = step; }
  void wait_for_end() { has_ended_.wait(false); }

 private:
  void run(const comm::ControlClientOptions& options) {
    try {
      const auto link = ControlClient::connect(options, Deadline::after(10s));
      std::optional<test::OracleWorld> oracle;
      while (auto message = link->receive(Deadline::after(20s))) {
        if (message->type == MessageType::kStop) return;
        if (message->type == MessageType::kClusterPlan) {
          oracle.emplace(parallel::ClusterPlan::decode(message->payload).num_kv_blocks);
          link->send(MessageType::kReady, parallel::WorkerReady{}.encode());
          if (ready_ == Once::kFloods) send_junk(*link);
        }
        if (message->type == MessageType::kStepPlan)
          answer(*link, *oracle, parallel::StepPlan::decode(message->payload));
      }
    } catch (const Error&) {
      // The coordinator left: so does the worker.
    }
  }
  // More than the coordinator's inbox takes (128 MiB), less than the link's outbox (256 MiB): a coordinator that reads
  // slowly must not make this end break the link first.
  static void send_junk(ControlClient& link) {
    const Bytes junk(1 << 20);
    for (int i = 0; i < 160; ++i) link.send(MessageType::kDrain, junk);
  }
  void answer(ControlClient& link, test::OracleWorld& oracle, const parallel::StepPlan& plan) {
    if (plan.step == fail_at_) {
      link.send(MessageType::kFault, parallel::WorkerFault{ErrorCode::kSystem, "disk of node1 melted"}.encode());
      return;
    }
    link.send(MessageType::kStageReport, parallel::StageReport{plan.epoch, plan.step, rank_, 100, 10, 1}.encode());
    if (rank_ == 1) link.send(MessageType::kStepResult, oracle.run(plan).encode());
  }

  const int rank_;
  const Once ready_;
  std::atomic<uint64_t> fail_at_ = 0;
  std::atomic<bool> has_ended_ = false;
  std::thread thread_;
};

class Tokens : public JobSink {
 public:
  void on_prompt_logprobs(std::vector<parallel::SampledToken>) override {}
  void on_token(TokenEvent event) override { ids.push_back(event.token.token.token_id); }
  void on_done(int64_t) override { end({}); }
  void on_error(const Failure& failure) override { end(failure); }
  bool is_congested() const override { return false; }
  bool wait() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [this] { return ended_; });
  }
  std::vector<int32_t> ids;  // after wait()
  std::optional<Failure> failure;

 private:
  void end(std::optional<Failure> why) {
    std::lock_guard lock(mutex_);
    failure = std::move(why);
    ended_ = true;
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
};

std::string failure_of(std::unique_ptr<ControlServer> server, const ClusterRequest& request, Deadline deadline,
                       const GaveUp& gave_up, ErrorCode code) {
  try {
    ControlWorld::establish(std::move(server), request, test::toy_config(), deadline, {gave_up});
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(ControlWorld, SaysOnceWhyRanksComputeOnTheCpu) {
  auto server = make_server();
  auto hellos = test::toy_hellos(2, 2);
  hellos[0].gpu_absence = DeviceAbsence::kNoDriver;
  hellos[0].gpu_problem = "no driver here; install one";
  hellos[1].gpu_absence = DeviceAbsence::kDriverTooOld;
  hellos[1].gpu_problem = "the driver is for CUDA 11; update it";
  FakeWorker first(server->port(), 0, hellos[0]);
  FakeWorker last(server->port(), 1, hellos[1]);
  init_log(LogLevel::kInfo, "test");
  testing::internal::CaptureStderr();
  ControlWorld::establish(std::move(server), two_stages(), test::toy_config(), Deadline::after(20s), {});
  const std::string said = testing::internal::GetCapturedStderr();
  init_log(LogLevel::kError, "test");
  EXPECT_NE(said.find("rank 1 on node0 computes on the CPU: the driver is for CUDA 11; update it"), std::string::npos);
  EXPECT_EQ(said.find("install one"), std::string::npos) << said;
}

TEST(ControlWorld, CarriesJobsToWorkersAndBack) {
  auto server = make_server();
  const auto hellos = test::toy_hellos(2, 2);
  FakeWorker first(server->port(), 0, hellos[0]);
  FakeWorker last(server->port(), 1, hellos[1]);
  auto world = ControlWorld::establish(std::move(server), two_stages(), test::toy_config(), Deadline::after(20s), {});
  EXPECT_EQ(world->plan().layout.pp, 2);
  Engine engine({}, nullptr, std::move(world));
  std::vector<std::pair<JobRequest, std::shared_ptr<Tokens>>> jobs;
  for (int i = 0; i < 8; ++i) {
    JobRequest request;
    request.prompt_ids = {i, 7, 8, 9};
    request.max_tokens = 40;
    auto sink = std::make_shared<Tokens>();
    ASSERT_TRUE(engine.submit(request, sink));
    jobs.emplace_back(request, sink);
  }
  for (auto& [request, sink] : jobs) {
    ASSERT_TRUE(sink->wait());
    EXPECT_FALSE(sink->failure);
    std::vector<int32_t> history = request.prompt_ids;
    for (int32_t id : sink->ids) {
      EXPECT_EQ(id, oracle_token(history, 0, 0));
      history.push_back(id);
    }
    EXPECT_EQ(sink->ids.size(), 40U);
  }
  EXPECT_TRUE(engine.health());
  EXPECT_GT(engine.stats().stages[0].num_reports, 0U);
}

TEST(ControlWorld, AWorkersFaultEndsJobsWithItsWords) {
  auto server = make_server();
  const auto hellos = test::toy_hellos(2, 2);
  FakeWorker first(server->port(), 0, hellos[0]);
  FakeWorker last(server->port(), 1, hellos[1]);
  last.fail_at(5);
  Engine engine({}, nullptr,
                ControlWorld::establish(std::move(server), two_stages(), test::toy_config(), Deadline::after(20s), {}));
  JobRequest request;
  request.prompt_ids = {1, 2, 3};
  request.max_tokens = 200;
  const auto sink = std::make_shared<Tokens>();
  ASSERT_TRUE(engine.submit(request, sink));
  ASSERT_TRUE(sink->wait());
  ASSERT_TRUE(sink->failure);
  EXPECT_EQ(sink->failure->code, ErrorCode::kPeerLost);
  EXPECT_NE(sink->failure->message.find("the world of workers is lost: rank 1 reports: disk of node1 melted"),
            std::string::npos)
      << sink->failure->message;
}

TEST(ControlWorld, NamesTheRanksThatDidNotJoin) {
  auto server = make_server();
  FakeWorker first(server->port(), 0, test::toy_hellos(2, 2)[0]);
  const std::string message =
      failure_of(std::move(server), two_stages(), Deadline::after(500ms), nobody_gave_up, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(message.find("1 of 2 workers did not join in time: ranks 1"), std::string::npos) << message;
}

TEST(ControlWorld, StopsWaitingWhenNobodyWillCome) {
  const std::string message = failure_of(
      make_server(), two_stages(), Deadline::after(20s),
      [] { return std::optional<std::string>("mpirun ended with code 7"); }, ErrorCode::kSystem);
  EXPECT_NE(message.find("mpirun ended with code 7"), std::string::npos);
}

TEST(ControlWorld, RefusesWorkersOfDifferentBuilds) {
  auto server = make_server();
  auto hellos = test::toy_hellos(2, 2);
  hellos[1].build_id = "other";
  FakeWorker first(server->port(), 0, hellos[0]);
  FakeWorker last(server->port(), 1, hellos[1]);
  const std::string message =
      failure_of(std::move(server), two_stages(), Deadline::after(20s), nobody_gave_up, ErrorCode::kInvalidArgument);
  EXPECT_NE(message.find("one answer needs one build"), std::string::npos) << message;
}

/// What the coordinator answers to a worker that it does not let join.
std::string refusal_of(int port, int rank, const parallel::WorkerHello& hello) {
  comm::ControlClientOptions options;
  options.host = "127.0.0.1";
  options.port = port;
  options.secret = kSecret;
  options.rank = rank;
  options.hello = hello.encode();
  const auto link = ControlClient::connect(options, Deadline::after(10s));
  const auto message = link->receive(Deadline::after(10s));
  if (!message || message->type != MessageType::kRefused) return "(it was not refused)";
  return {reinterpret_cast<const char*>(message->payload.data()), message->payload.size()};
}

/// A world of two that forms on a thread of its own.
class FormingWorld {
 public:
  explicit FormingWorld(std::shared_ptr<WorldAlarm> alarm = nullptr) {
    auto server = make_server();
    port_ = server->port();
    Forming forming;
    forming.progress = [this](const std::string& text) {
      const std::lock_guard lock(mutex_);
      progress_ = text;
      changed_.notify_all();
    };
    world_ = std::async(std::launch::async, [forming, alarm, server = std::move(server)]() mutable {
      return ControlWorld::establish(std::move(server), two_stages(), test::toy_config(), Deadline::after(20s), forming,
                                     alarm);
    });
  }
  int port() const { return port_; }
  std::unique_ptr<World> get() { return world_.get(); }
  bool wait_for_progress(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return progress_ == text; });
  }

 private:
  int port_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string progress_;
  std::future<std::unique_ptr<World>> world_;
};

TEST(ControlWorld, RefusesWorkersThatDoNotFitAndGoesOnWaiting) {
  FormingWorld forming;
  auto hellos = test::toy_hellos(2, 2);
  auto wrong = hellos[0];
  wrong.num_ranks = 4;
  EXPECT_EQ(refusal_of(forming.port(), 0, wrong),
            "its world has 4 ranks, but tp=1 x pp=2 needs 2: start the workers with mpirun -n 2");
  EXPECT_EQ(refusal_of(forming.port(), 1, hellos[0]), "the worker that joined as rank 1 says that it is rank 0");
  EXPECT_TRUE(forming.wait_for_progress("waiting for workers: 0 of 2 have joined"));
  FakeWorker first(forming.port(), 0, hellos[0]);
  EXPECT_TRUE(forming.wait_for_progress("waiting for workers: 1 of 2 have joined"));
  FakeWorker last(forming.port(), 1, hellos[1]);
  EXPECT_EQ(forming.get()->plan().layout.pp, 2);
}

TEST(ControlWorld, AWorkerMayLeaveBeforeAllHaveJoinedAndComeBack) {
  FormingWorld forming;
  const auto hellos = test::toy_hellos(2, 2);
  comm::ControlClientOptions options;
  options.host = "127.0.0.1";
  options.port = forming.port();
  options.secret = kSecret;
  options.hello = hellos[0].encode();
  auto early = ControlClient::connect(options, Deadline::after(10s));
  ASSERT_TRUE(forming.wait_for_progress("waiting for workers: 1 of 2 have joined"));
  early.reset();
  ASSERT_TRUE(forming.wait_for_progress("waiting for workers: 0 of 2 have joined"));
  FakeWorker last(forming.port(), 1, hellos[1]);
  FakeWorker first(forming.port(), 0, hellos[0]);
  EXPECT_EQ(forming.get()->plan().layout.pp, 2);
}

/// The events of the next take that has some.
std::vector<WorldEvent> take_some(World& world) {
  std::vector<WorldEvent> events;
  const Deadline deadline = Deadline::after(20s);
  while (events.empty() && !deadline.expired()) world.take(events, deadline);
  return events;
}

/// What becomes of a world whose rank 1, once it has the plan, says `fault` or else leaves without a word.
std::string failure_while_loading(std::optional<parallel::WorkerFault> fault, ErrorCode code) {
  FormingWorld forming;
  const auto hellos = test::toy_hellos(2, 2);
  FakeWorker first(forming.port(), 0, hellos[0]);
  comm::ControlClientOptions options;
  options.host = "127.0.0.1";
  options.port = forming.port();
  options.secret = kSecret;
  options.rank = 1;
  options.hello = hellos[1].encode();
  auto last = ControlClient::connect(options, Deadline::after(10s));
  while (last->receive(Deadline::after(20s))->type != MessageType::kClusterPlan) {
  }
  if (fault)
    last->send(MessageType::kFault, fault->encode());
  else
    last.reset();
  try {
    forming.get();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(ControlWorld, AWorldMayBeLostWhileItLoads) {
  EXPECT_EQ(failure_while_loading(std::nullopt, ErrorCode::kPeerLost),
            "rank 1 was lost while it loaded: the peer closed the link");
  EXPECT_EQ(failure_while_loading({{ErrorCode::kDeadlineExceeded, "nobody came"}}, ErrorCode::kPeerLost),
            "rank 1 reports: nobody came");
  EXPECT_EQ(failure_while_loading({{ErrorCode::kNotFound, "no model at /m"}}, ErrorCode::kSystem),
            "rank 1 reports: no model at /m");
}

TEST(ControlWorld, AnAlarmLosesTheWorldAtOnceAndOnce) {
  for (const bool rings_early : {false, true}) {
    const auto alarm = std::make_shared<WorldAlarm>();
    FormingWorld forming(alarm);
    const auto hellos = test::toy_hellos(2, 2);
    FakeWorker first(forming.port(), 0, hellos[0]);
    FakeWorker last(forming.port(), 1, hellos[1]);
    if (rings_early) alarm->ring("mpirun was killed by signal 9");
    const auto world = forming.get();
    std::thread ringer([&] { alarm->ring("mpirun was killed by signal 9"); });
    const auto events = take_some(*world);
    ringer.join();
    ASSERT_EQ(events.size(), 1U);
    ASSERT_TRUE(std::holds_alternative<WorldLost>(events[0]));
    EXPECT_EQ(std::get<WorldLost>(events[0]).reason, "mpirun was killed by signal 9");
    std::vector<WorldEvent> later;  // the workers leave now: no second loss
    world->take(later, Deadline::after(300ms));
    EXPECT_TRUE(later.empty());
  }
}

TEST(ControlWorld, ARankThatFillsTheInboxIsLost) {
  FormingWorld forming;
  const auto hellos = test::toy_hellos(2, 2);
  FakeWorker first(forming.port(), 0, hellos[0]);
  FakeWorker last(forming.port(), 1, hellos[1], FakeWorker::Once::kFloods);
  const auto world = forming.get();
  last.wait_for_end();  // nothing is taken until it was dropped
  const auto events = take_some(*world);
  ASSERT_EQ(events.size(), 1U);
  ASSERT_TRUE(std::holds_alternative<WorldLost>(events[0]));
  EXPECT_EQ(std::get<WorldLost>(events[0]).reason,
            "rank 1 is lost: it sends faster than the coordinator takes: the queue is full");
}

}  // namespace
}  // namespace chorale::coordinator
