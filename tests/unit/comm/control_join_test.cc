// Who joins a control link and who does not, and what either side says about it.
#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>

#include "comm/base/log.h"
#include "tests/unit/comm/control_fixture.h"

namespace chorale::comm::test {
namespace {

TEST_F(ControlLink, AHandlerWithoutRoomDropsTheLinkThatFilledIt) {
  serve_with([](const LinkEvent& event) { return event.kind != Kind::kMessage; });
  auto client = ControlClient::connect(client_options(0), soon());
  client->send(MessageType::kStepResult, text("one too many"));
  EXPECT_THROW(while (client->receive(soon())){}, Error);
  EXPECT_FALSE(server_->connected(0));
}

TEST_F(ControlLink, AMessageAboveTheLimitIsAnErrorOfItsSender) {
  serve();
  auto client = join(0);
  const Bytes large(kMaxFramePayload + 1);
  for (const auto& send : {std::function<void()>([&] { server_->send(0, MessageType::kStepPlan, large); }),
                           std::function<void()>([&] { client->send(MessageType::kStepResult, large); })}) {
    try {
      send();
      ADD_FAILURE() << "was sent";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
      EXPECT_NE(std::string(error.what()).find("67108865 bytes"), std::string::npos) << error.what();
    }
  }
  expect_works(*client, 0);
}

TEST_F(ControlLink, AWorkerWhoseHelloDoesNotFitIsToldAndOthersJoin) {
  serve_with(nullptr, [](int rank, const Bytes& hello) {
    return hello == text("hello of 1") ? fmt::format("rank {} is not wanted", rank) : "";
  });
  ControlClientOptions options = client_options(1);
  std::atomic<bool> lost{false};
  options.on_lost = [&](LinkLoss, const std::string&) { lost.store(true); };
  auto refused = ControlClient::connect(options, soon());
  const auto message = refused->receive(soon());
  ASSERT_TRUE(message.has_value());
  EXPECT_EQ(message->type, MessageType::kRefused);
  EXPECT_EQ(message->payload, text("rank 1 is not wanted"));
  EXPECT_THROW((void)refused->receive(soon()), Error);
  refused.reset();
  EXPECT_FALSE(lost.load()) << "it was told why";
  auto other = join(0);  // the next event: nobody heard of rank 1
  ControlClientOptions again = client_options(1);
  again.hello = text("hello of another 1");
  auto accepted = ControlClient::connect(again, soon());
  expect_event(Kind::kJoined, 1);
  expect_works(*accepted, 1);
}

TEST_F(ControlLink, SaysOnceAndAtOnceThatNobodyAnswers) {
  ControlClientOptions options;
  options.secret = kSecret;
  const Listener closed = listen_on("127.0.0.1", 0);
  options.port = closed.port;
  const_cast<Listener&>(closed).fd.reset();
  init_log(LogLevel::kWarn, "test");
  for (const char* host : {"127.0.0.1", "no such host"}) {
    options.host = host;
    testing::internal::CaptureStderr();
    std::string reason;
    try {
      ControlClient::connect(options, Deadline::after(milliseconds(300)));
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kDeadlineExceeded);
      reason = error.what();
    }
    const std::string said = testing::internal::GetCapturedStderr();
    const std::string place = fmt::format("no coordinator at {}:{}", host, options.port);
    const char* const why = host[0] == '1' ? "Connection refused" : "no address for host";
    EXPECT_EQ(std::ranges::count(said, '\n'), 1) << said;
    for (const std::string& text : {said, reason}) {
      EXPECT_NE(text.find(place), std::string::npos) << text;
      EXPECT_NE(text.find(why), std::string::npos) << text;
    }
  }
  init_log(LogLevel::kError, "test");
}

TEST_F(ControlLink, AWorkerMayStartBeforeTheCoordinator) {
  const Listener reserved = listen_on("127.0.0.1", 0);
  ControlServerOptions options = server_options();
  options.port = reserved.port;
  std::unique_ptr<ControlClient> client;
  ControlClientOptions wanted;
  wanted.host = "127.0.0.1";
  wanted.port = reserved.port;
  wanted.secret = kSecret;
  EXPECT_THROW(ControlClient::connect(wanted, Deadline::after(milliseconds(60))), Error);
  const_cast<Listener&>(reserved).fd.reset();
  std::thread worker([&] { client = ControlClient::connect(wanted, soon()); });
  serve(options);
  expect_event(Kind::kJoined, 0);
  worker.join();
  expect_works(*client, 0);
}

TEST_F(ControlLink, RefusesAWrongSecretEpochRankAndASecondOfTheSameRank) {
  serve();
  auto good = join(1);
  ControlClientOptions options = client_options(0);
  options.secret = "not the secret of this world";
  expect_refused(options, "secrets differ");
  options = client_options(0);
  options.epoch = 4;
  expect_refused(options, "epoch 4");
  expect_refused(client_options(3), "rank 3");
  expect_refused(client_options(1), "connected already");
  expect_works(*good, 1);
}

TEST_F(ControlLink, ARankMayComeBackAfterItWasLost) {
  serve();
  join(1).reset();
  expect_event(Kind::kLost, 1);
  auto again = join(1);
  expect_works(*again, 1);
}

}  // namespace
}  // namespace chorale::comm::test
