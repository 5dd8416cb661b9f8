#include "coordinator/control_world.h"

#include <condition_variable>
#include <thread>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "comm/control_link.h"
#include "coordinator/engine.h"
#include "coordinator/make_cluster_plan.h"
#include "tests/support/oracle_world.h"
#include "tests/unit/coordinator/toy_model.h"

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
  FakeWorker(int port, int rank, parallel::WorkerHello hello) : rank_(rank) {
    comm::ControlClientOptions options;
    options.host = "127.0.0.1";
    options.port = port;
    options.secret = kSecret;
    options.rank = rank;
    options.hello = hello.encode();
    thread_ = std::thread([this, options] { run(options); });
  }
  ~FakeWorker() { thread_.join(); }
  /// Sends a fault instead of the answer to step `step`.
  void fail_at(uint64_t step) { fail_at_ = step; }

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
        }
        if (message->type == MessageType::kStepPlan)
          answer(*link, *oracle, parallel::StepPlan::decode(message->payload));
      }
    } catch (const Error&) {
      // The coordinator left: so does the worker.
    }
  }
  void answer(ControlClient& link, test::OracleWorld& oracle, const parallel::StepPlan& plan) {
    if (plan.step == fail_at_) {
      const std::string why = "disk of node1 melted";
      link.send(MessageType::kFault, std::as_bytes(std::span(why)));
      return;
    }
    link.send(MessageType::kStageReport, parallel::StageReport{plan.epoch, plan.step, rank_, 100, 10, 1}.encode());
    if (rank_ == 1) link.send(MessageType::kStepResult, oracle.run(plan).encode());
  }

  int rank_;
  std::atomic<uint64_t> fail_at_ = 0;
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
    ControlWorld::establish(std::move(server), request, test::toy_config(), deadline, gave_up);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(ControlWorld, CarriesJobsToWorkersAndBack) {
  auto server = make_server();
  const auto hellos = test::toy_hellos(2, 2);
  FakeWorker first(server->port(), 0, hellos[0]);
  FakeWorker last(server->port(), 1, hellos[1]);
  auto world = ControlWorld::establish(std::move(server), two_stages(), test::toy_config(), Deadline::after(20s),
                                       nobody_gave_up);
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
                ControlWorld::establish(std::move(server), two_stages(), test::toy_config(), Deadline::after(20s),
                                        nobody_gave_up));
  JobRequest request;
  request.prompt_ids = {1, 2, 3};
  request.max_tokens = 200;
  const auto sink = std::make_shared<Tokens>();
  ASSERT_TRUE(engine.submit(request, sink));
  ASSERT_TRUE(sink->wait());
  ASSERT_TRUE(sink->failure);
  EXPECT_EQ(sink->failure->code, ErrorCode::kPeerLost);
  EXPECT_NE(sink->failure->message.find("rank 1 is lost: disk of node1 melted"), std::string::npos)
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

TEST(ControlWorld, RefusesAHelloThatContradictsItsLink) {
  auto server = make_server();
  auto hellos = test::toy_hellos(2, 2);
  hellos[1].rank = 0;
  FakeWorker first(server->port(), 0, hellos[0]);
  FakeWorker last(server->port(), 1, hellos[1]);
  const std::string message =
      failure_of(std::move(server), two_stages(), Deadline::after(20s), nobody_gave_up, ErrorCode::kInvalidArgument);
  EXPECT_NE(message.find("rank 1"), std::string::npos) << message;
}

}  // namespace
}  // namespace chorale::coordinator
