// A control server, and workers and strangers that call it: the ground of the control link's tests.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include <gtest/gtest.h>

#include "comm/base/error.h"
#include "comm/control_link.h"
#include "comm/control_socket.h"

namespace chorale::comm::test {
using std::chrono::milliseconds;
using std::chrono::seconds;
using Kind = LinkEvent::Kind;

inline const std::string kSecret = "a shared secret for tests";
inline Deadline soon() { return Deadline::after(seconds(20)); }

inline Bytes text(std::string_view characters) {
  const auto* p = reinterpret_cast<const std::byte*>(characters.data());
  return Bytes(p, p + characters.size());
}

inline ControlServerOptions server_options() {
  ControlServerOptions options;
  options.secret = kSecret;
  options.epoch = 5;
  options.num_ranks = 3;
  return options;
}

class ControlLink : public testing::Test {
 protected:
  void serve(const ControlServerOptions& options = server_options()) {
    timing_ = options.timing;
    server_ = std::make_unique<ControlServer>(options);
    server_->start();
  }
  void serve_with(ControlServer::Handler handler, ControlServer::Objection objection = nullptr) {
    timing_ = server_options().timing;
    server_ = std::make_unique<ControlServer>(server_options());
    server_->start(std::move(handler), std::move(objection));
  }
  ControlClientOptions client_options(int rank) const {
    ControlClientOptions options;
    options.host = "127.0.0.1";
    options.port = server_->port();
    options.secret = kSecret;
    options.epoch = 5;
    options.rank = rank;
    options.hello = text("hello of " + std::to_string(rank));
    options.timing = timing_;
    return options;
  }
  std::unique_ptr<ControlClient> join(int rank) {
    auto client = ControlClient::connect(client_options(rank), soon());
    expect_event(Kind::kJoined, rank);
    return client;
  }
  LinkEvent expect_event(Kind kind, int rank) {
    auto event = server_->wait(soon());
    EXPECT_TRUE(event.has_value()) << "no event came";
    if (!event) return {};
    EXPECT_EQ(event->kind, kind) << event->reason;
    EXPECT_EQ(event->rank, rank);
    return *event;
  }
  void expect_refused(ControlClientOptions options, const std::string& part) {
    try {
      ControlClient::connect(std::move(options), soon());
      ADD_FAILURE() << "was let in";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
  /// A plain socket to the server.
  Fd stranger() {
    std::string reason;
    Fd fd = connect_to("127.0.0.1", server_->port(), soon(), reason);
    EXPECT_TRUE(static_cast<bool>(fd)) << reason;
    return fd;
  }
  static void write_all(const Fd& fd, const Bytes& bytes) {
    EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static void expect_closed(const Fd& fd) {
    const Deadline deadline = soon();
    char buffer[4096];
    for (;;) {
      ASSERT_TRUE(wait_for(fd.get(), POLLIN, deadline)) << "still open";
      if (recv(fd.get(), buffer, sizeof(buffer), 0) <= 0) return;
    }
  }
  /// The link still serves the others.
  void expect_works(ControlClient& client, int rank) {
    ASSERT_TRUE(server_->send(rank, MessageType::kStepPlan, text("plan")));
    const auto plan = client.receive(soon());
    ASSERT_TRUE(plan.has_value());
    EXPECT_EQ(plan->payload, text("plan"));
    client.send(MessageType::kStepResult, text("result"));
    EXPECT_EQ(expect_event(Kind::kMessage, rank).payload, text("result"));
  }

  LinkTiming timing_;
  std::unique_ptr<ControlServer> server_;
};

}  // namespace chorale::comm::test
