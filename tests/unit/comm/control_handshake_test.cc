#include "comm/control_handshake.h"

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "tests/support/temporary_folder.h"

namespace chorale::comm {
namespace {

const std::string kSecret = "a shared secret for tests";

Frame only_frame(const Bytes& bytes) {
  FrameParser parser(kMaxHandshakePayload);
  parser.feed(bytes);
  auto frame = parser.next();
  EXPECT_TRUE(frame.has_value());
  return frame.value_or(Frame{});
}

struct Outcome {
  HandshakeState server;
  HandshakeState client;
  std::string server_reason;
  std::string client_reason;
  uint64_t client_epoch;
};

Outcome shake(const ServerHandshake::Expectation& expected, const std::string& secret, uint64_t epoch, int rank) {
  ServerHandshake server(expected, random_nonce());
  ClientHandshake client(secret, epoch, rank, random_nonce());
  Bytes to_server = client.open();
  while (!to_server.empty()) {
    const Bytes to_client = server.handle(only_frame(to_server));
    to_server = client.handle(only_frame(to_client));
  }
  return {server.state(), client.state(), server.reason(), client.reason(), client.epoch()};
}

ServerHandshake::Expectation world_of(int num_ranks) {
  ServerHandshake::Expectation expected;
  expected.secret = kSecret;
  expected.epoch = 7;
  expected.num_ranks = num_ranks;
  return expected;
}

TEST(Handshake, TwoWhoKnowTheSecretMeet) {
  const Outcome outcome = shake(world_of(4), kSecret, 7, 3);
  EXPECT_EQ(outcome.server, HandshakeState::kDone);
  EXPECT_EQ(outcome.client, HandshakeState::kDone);
}

TEST(Handshake, AWorkerWithoutAnEpochTakesTheCoordinators) {
  const Outcome outcome = shake(world_of(4), kSecret, kAnyEpoch, 0);
  EXPECT_EQ(outcome.client, HandshakeState::kDone);
  EXPECT_EQ(outcome.client_epoch, 7u);
}

TEST(Handshake, RefusesWithAReasonThatReachesTheWorker) {
  const auto expect_refusal = [](const Outcome& outcome, const std::string& part) {
    EXPECT_EQ(outcome.server, HandshakeState::kRefused);
    EXPECT_EQ(outcome.client, HandshakeState::kRefused);
    EXPECT_NE(outcome.client_reason.find(part), std::string::npos) << outcome.client_reason;
    EXPECT_EQ(outcome.server_reason, outcome.client_reason);
  };
  expect_refusal(shake(world_of(4), "another secret, just as long", 7, 3), "secrets differ");
  expect_refusal(shake(world_of(4), kSecret, 8, 3), "epoch 8");
  expect_refusal(shake(world_of(4), kSecret, 7, 4), "rank 4");
  expect_refusal(shake(world_of(4), kSecret, 7, -1), "rank -1");
  auto taken = world_of(4);
  taken.objection = [](int rank) { return rank == 2 ? "rank 2 is connected already" : ""; };
  expect_refusal(shake(taken, kSecret, 7, 2), "connected already");
  EXPECT_EQ(shake(taken, kSecret, 7, 1).server, HandshakeState::kDone);
}

TEST(Handshake, AWrongSecretLearnsNothingAboutTheWorld) {
  const Outcome outcome = shake(world_of(4), "another secret, just as long", 8, 99);
  EXPECT_EQ(outcome.client_reason.find("epoch"), std::string::npos);
  EXPECT_EQ(outcome.client_reason.find("rank"), std::string::npos);
}

TEST(Handshake, TheWorkerRefusesACoordinatorThatOnlyClaimsToKnow) {
  ClientHandshake client(kSecret, 7, 0, random_nonce());
  client.open();
  client.handle(Frame{MessageType::kAuthChallenge, 7, Bytes(32)});
  client.handle(Frame{MessageType::kAuthWelcome, 7, Bytes(32)});
  EXPECT_EQ(client.state(), HandshakeState::kRefused);
}

TEST(Handshake, AnOldProofIsWorthlessAgainstANewNonce) {
  const auto expected = world_of(1);
  ClientHandshake client(kSecret, 7, 0, random_nonce());
  const Frame hello = only_frame(client.open());
  ServerHandshake first(expected, random_nonce());
  const Frame proof = only_frame(client.handle(only_frame(first.handle(hello))));
  ServerHandshake second(expected, random_nonce());
  second.handle(hello);
  second.handle(proof);
  EXPECT_EQ(second.state(), HandshakeState::kRefused);
}

TEST(Handshake, FramesOutOfPlaceAreCorrupt) {
  const auto expected = world_of(1);
  ServerHandshake server(expected, random_nonce());
  EXPECT_THROW(server.handle(Frame{MessageType::kAuthProof, 7, Bytes(32)}), Error);
  EXPECT_THROW(server.handle(Frame{MessageType::kStepPlan, 7, {}}), Error);
  EXPECT_THROW(server.handle(Frame{MessageType::kAuthHello, 7, Bytes(35)}), Error);
  EXPECT_THROW(ServerHandshake(expected, random_nonce()).handle(Frame{MessageType::kAuthHello, 7, Bytes(37)}), Error);
  ClientHandshake client(kSecret, 7, 0, random_nonce());
  EXPECT_THROW(client.handle(Frame{MessageType::kAuthWelcome, 7, Bytes(32)}), Error);
}

TEST(FrameParser, ReadsFramesHoweverTheBytesAreCut) {
  Bytes wire;
  for (int i = 0; i < 50; ++i) {
    const Bytes frame = encode_frame(MessageType::kStepPlan, 3, Bytes(i * 37, static_cast<std::byte>(i)));
    wire.insert(wire.end(), frame.begin(), frame.end());
  }
  for (size_t step : {1u, 7u, 1000u, 100'000u}) {
    FrameParser parser(kMaxFramePayload);
    int seen = 0;
    for (size_t begin = 0; begin < wire.size(); begin += step) {
      parser.feed(std::span(wire).subspan(begin, std::min<size_t>(step, wire.size() - begin)));
      while (auto frame = parser.next()) {
        EXPECT_EQ(frame->payload, Bytes(seen * 37, static_cast<std::byte>(seen)));
        ++seen;
      }
    }
    EXPECT_EQ(seen, 50);
  }
}

TEST(FrameParser, RefusesWhatIsNoFrame) {
  const auto refused = [](Bytes bytes) {
    FrameParser parser(kMaxHandshakePayload);
    parser.feed(bytes);
    EXPECT_THROW(parser.next(), Error);
  };
  refused(Bytes(20, std::byte{0x47}));
  refused(encode_frame_header(MessageType::kHello, 1, kMaxHandshakePayload + 1));
  Bytes other_version = encode_frame(MessageType::kHello, 1, {});
  other_version[4] = std::byte{9};
  refused(other_version);
  Bytes other_type = encode_frame(MessageType::kHello, 1, {});
  other_type[6] = std::byte{99};
  refused(other_type);
}

class SecretFile : public testing::Test {
 protected:
  std::string write(const std::string& text) {
    const std::string path = folder_.write("secret", text);
    chmod(path.c_str(), 0600);
    return path;
  }
  const test::TemporaryFolder folder_;
};

TEST_F(SecretFile, IsReadWithoutItsLineEnd) {
  EXPECT_EQ(secret_from(write("0123456789abcdef\r\n")), "0123456789abcdef");
}

TEST_F(SecretFile, TooShortOrMissingIsAnError) {
  EXPECT_THROW(secret_from(write("short\n")), Error);
  EXPECT_THROW(secret_from(folder_.path() / "not_there"), Error);
}

TEST_F(SecretFile, RandomSecretsDifferAndAreLongEnough) {
  EXPECT_NE(random_secret(), random_secret());
  EXPECT_EQ(secret_from(write(random_secret())).size(), 64u);
}

}  // namespace
}  // namespace chorale::comm
