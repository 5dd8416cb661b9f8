#include "comm/control_link.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "tests/unit/comm/control_fixture.h"

namespace chorale::comm::test {
namespace {

TEST_F(ControlLink, CarriesPlansAndResults) {
  serve();
  auto client = ControlClient::connect(client_options(1), soon());
  EXPECT_EQ(expect_event(Kind::kJoined, 1).payload, text("hello of 1"));
  EXPECT_TRUE(server_->connected(1));
  EXPECT_FALSE(server_->connected(0));
  EXPECT_FALSE(server_->send(0, MessageType::kStepPlan, {}));
  EXPECT_EQ(client->epoch(), 5u);
  expect_works(*client, 1);
}

TEST_F(ControlLink, BroadcastsToAllInOrder) {
  serve();
  auto a = join(0);
  auto b = join(2);
  for (int i = 0; i < 100; ++i) server_->broadcast(MessageType::kStepPlan, text(std::to_string(i)));
  for (auto* client : {a.get(), b.get()})
    for (int i = 0; i < 100; ++i) EXPECT_EQ(client->receive(soon())->payload, text(std::to_string(i)));
}

TEST_F(ControlLink, CarriesMessagesLargerThanTheSocketsBuffers) {
  serve();
  auto client = join(0);
  const Bytes large(20u << 20, std::byte{7});
  EXPECT_TRUE(server_->send(0, MessageType::kClusterPlan, large));
  EXPECT_TRUE(server_->send(0, MessageType::kStepPlan, text("behind it")));
  EXPECT_EQ(client->receive(soon())->payload, large);
  EXPECT_EQ(client->receive(soon())->payload, text("behind it"));
  client->send(MessageType::kStepResult, large);
  EXPECT_EQ(expect_event(Kind::kMessage, 0).payload, large);
}

TEST_F(ControlLink, HandsEventsToAHandler) {
  std::atomic<int> joined{0};
  std::atomic<int> lost{0};
  ControlServer server(server_options());
  server.start([&](LinkEvent event) {
    if (event.kind == Kind::kJoined) joined.fetch_add(1);
    if (event.kind == Kind::kLost) lost.fetch_add(1);
    joined.notify_all();
    lost.notify_all();
    return true;
  });
  ControlClientOptions options;
  options.host = "127.0.0.1";
  options.port = server.port();
  options.secret = kSecret;
  auto client = ControlClient::connect(options, soon());
  joined.wait(0);
  client.reset();
  lost.wait(0);
  EXPECT_EQ(joined.load(), 1);
}

TEST_F(ControlLink, GarbageHugeLengthsAndHalfFramesDisturbNobody) {
  ControlServerOptions options = server_options();
  options.timing.handshake_timeout = milliseconds(50);
  options.timing.heartbeat = milliseconds(20);
  options.timing.missed_heartbeats = 100;
  serve(options);
  auto good = join(0);
  const Fd garbage = stranger();
  write_all(garbage, text("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  expect_closed(garbage);
  const Fd huge = stranger();
  Bytes header = encode_frame_header(MessageType::kAuthHello, 5, 0);
  for (int i = 16; i < 20; ++i) header[i] = std::byte{0xff};
  write_all(huge, header);
  expect_closed(huge);
  const Fd half = stranger();
  write_all(half, Bytes(header.begin(), header.begin() + 7));
  const Fd silent = stranger();
  expect_closed(half);
  expect_closed(silent);
  const Fd plan_without_proof = stranger();
  write_all(plan_without_proof, encode_frame(MessageType::kStepResult, 5, {}));
  expect_closed(plan_without_proof);
  expect_works(*good, 0);
}

TEST_F(ControlLink, ClosesStrangersBeyondTheLimit) {
  ControlServerOptions options = server_options();
  options.max_strangers = 2;
  serve(options);
  const Fd first = stranger();
  const Fd second = stranger();
  const Fd third = stranger();
  expect_closed(third);
}

TEST_F(ControlLink, ALostWorkerIsReportedAtOnce) {
  serve();
  auto client = join(2);
  const auto start = Deadline::Clock::now();
  client.reset();
  EXPECT_NE(expect_event(Kind::kLost, 2).reason, "");
  EXPECT_LT(Deadline::Clock::now() - start, milliseconds(900));
}

/// A worker that proved itself and then neither speaks nor hangs up: what a frozen or unplugged host looks like.
Fd frozen_worker(uint16_t port) {
  std::string reason;
  Fd fd = connect_to("127.0.0.1", port, soon(), reason);
  ControlConnection connection(Fd(dup(fd.get())), kMaxHandshakePayload, 1 << 20);
  ClientHandshake handshake(kSecret, 5, 0, random_nonce());
  connection.send_raw(handshake.open(), {});
  while (handshake.state() == HandshakeState::kOpen && wait_for(fd.get(), POLLIN, soon())) {
    connection.read();
    while (auto frame = connection.parser().next()) connection.send_raw(handshake.handle(*frame), {});
  }
  connection.send(MessageType::kHello, 5, {});
  return fd;
}

TEST_F(ControlLink, ASilentWorkerIsLostAfterThreeHeartbeats) {
  ControlServerOptions options = server_options();
  options.timing.heartbeat = milliseconds(20);
  serve(options);
  const auto start = Deadline::Clock::now();
  const Fd frozen = frozen_worker(server_->port());
  expect_event(Kind::kJoined, 0);
  EXPECT_NE(expect_event(Kind::kLost, 0).reason.find("heartbeats"), std::string::npos);
  EXPECT_GE(Deadline::Clock::now() - start, milliseconds(60));
}

TEST_F(ControlLink, HeartbeatsKeepAnIdleLinkAlive) {
  ControlServerOptions options = server_options();
  options.timing.heartbeat = milliseconds(20);
  options.timing.missed_heartbeats = 25;  // half a second: a busy machine may keep a thread waiting
  serve(options);
  auto client = join(0);
  EXPECT_FALSE(client->receive(Deadline::after(milliseconds(900))).has_value());
  expect_works(*client, 0);
}

TEST_F(ControlLink, AWorkerLearnsThatItsCoordinatorIsGone) {
  serve();
  std::atomic<bool> told{false};
  ControlClientOptions options = client_options(0);
  options.on_lost = [&](LinkLoss, const std::string&) {
    told.store(true);
    told.notify_all();
  };
  auto client = ControlClient::connect(options, soon());
  expect_event(Kind::kJoined, 0);
  server_->send(0, MessageType::kStepPlan, text("last words"));
  server_->close();
  EXPECT_EQ(client->receive(soon())->payload, text("last words"));
  EXPECT_THROW(client->receive(soon()), Error);
  told.wait(false);
  EXPECT_THROW(client->send(MessageType::kStepResult, {}), Error);
}

TEST_F(ControlLink, AnEndAfterStopIsNoLoss) {
  serve();
  std::atomic<bool> told{false};
  ControlClientOptions options = client_options(0);
  options.on_lost = [&](LinkLoss, const std::string&) { told.store(true); };
  auto client = ControlClient::connect(options, soon());
  expect_event(Kind::kJoined, 0);
  server_->send(0, MessageType::kStop, {});
  server_->close();
  EXPECT_EQ(client->receive(soon())->type, MessageType::kStop);
  EXPECT_THROW(client->receive(soon()), Error);
  client.reset();
  EXPECT_FALSE(told.load());
}

/// Whether a client was found to live too long.
class Overdue {
 public:
  void watch(ControlClientOptions& options) {
    options.on_lost = [this](LinkLoss how, const std::string&) {
      if (how != LinkLoss::kOverdue) return;
      const std::lock_guard lock(mutex_);
      told_ = true;
      changed_.notify_all();
    };
  }
  bool await(milliseconds most) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [this] { return told_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool told_ = false;
};

TEST_F(ControlLink, AWorkerOfALostWorldMayHangInAStepForAShortTimeOnly) {
  serve();
  Overdue overdue;
  ControlClientOptions options = client_options(0);
  overdue.watch(options);
  options.lost_end = milliseconds(20);
  options.clean_end = std::chrono::hours(1);
  const auto client = ControlClient::connect(options, soon());
  expect_event(Kind::kJoined, 0);
  server_->send(0, MessageType::kStop, text("rank 1 is lost"));
  EXPECT_TRUE(overdue.await(milliseconds(30'000)));
}

// The owner computes for as long as its step may, however late; then it has the time of a clean end, also when the
// coordinator is gone by then.
TEST_F(ControlLink, ACleanEndIsTimedFromWhenTheWorkerTakesTheStop) {
  for (const bool is_closed : {false, true}) {
    serve();
    Overdue overdue;
    ControlClientOptions options = client_options(0);
    overdue.watch(options);
    options.clean_end = milliseconds(20);
    options.timing.heartbeat = milliseconds(20);
    options.timing.missed_heartbeats = 1000;
    const auto client = ControlClient::connect(options, soon());
    expect_event(Kind::kJoined, 0);
    server_->send(0, MessageType::kStop, {});
    if (is_closed) server_->close();
    EXPECT_FALSE(overdue.await(10 * options.clean_end)) << "a step may be under way";
    EXPECT_EQ(client->receive(soon())->type, MessageType::kStop);
    EXPECT_TRUE(overdue.await(milliseconds(30'000)));
  }
}

TEST_F(ControlLink, AFrameOfAnotherEpochEndsTheLink) {
  serve();
  const Fd frozen = frozen_worker(server_->port());
  expect_event(Kind::kJoined, 0);
  write_all(frozen, encode_frame(MessageType::kStepResult, 6, {}));
  EXPECT_NE(expect_event(Kind::kLost, 0).reason.find("epoch 6"), std::string::npos);
}

TEST_F(ControlLink, AWorkerThatDoesNotReadIsLostNotWaitedFor) {
  ControlServerOptions options = server_options();
  options.max_outbox_bytes = 1 << 20;
  serve(options);
  const Fd frozen = frozen_worker(server_->port());
  expect_event(Kind::kJoined, 0);
  const Bytes large(1 << 20);
  bool sent = true;
  for (int i = 0; i < 100 && sent; ++i) sent = server_->send(0, MessageType::kStepPlan, large);
  EXPECT_FALSE(sent);
  EXPECT_NE(expect_event(Kind::kLost, 0).reason.find("does not read"), std::string::npos);
}

TEST_F(ControlLink, EventsThatNobodyFetchesAreBounded) {
  ControlServerOptions options = server_options();
  options.max_queue_bytes = 10'000;
  serve(options);
  auto client = join(0);
  try {
    for (int i = 0; i < 1000; ++i) client->send(MessageType::kStepResult, Bytes(1000));
    client->receive(soon());
    ADD_FAILURE() << "the link outlived a full queue";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  }
}

TEST(ControlServer, APortInUseIsAnErrorThatNamesIt) {
  const Listener taken = listen_on("127.0.0.1", 0);
  ControlServerOptions options = server_options();
  options.port = taken.port;
  try {
    ControlServer server(options);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(taken.port)), std::string::npos);
  }
}

}  // namespace
}  // namespace chorale::comm::test
