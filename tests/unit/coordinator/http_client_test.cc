// The project's own client against the server, and against servers that misbehave.
#include <gtest/gtest.h>

#include "coordinator/commands/load_client.h"
#include "coordinator/http/client.h"
#include "tests/unit/coordinator/http_fixture.h"

namespace chorale::test {
namespace {

using coordinator::Transport;
using coordinator::http::HttpClient;
using coordinator::http::SseReader;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// Accepts one connection, reads the request's head, says `words` and closes.
class RudeServer {
 public:
  explicit RudeServer(std::string words) : listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener_, 1);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this, words = std::move(words)] {
      const int fd = accept(listener_, nullptr, nullptr);
      char bytes[4096];
      const ssize_t got = recv(fd, bytes, sizeof(bytes), 0);
      if (got > 0) send(fd, words.data(), words.size(), MSG_NOSIGNAL);
      shutdown(fd, SHUT_WR);
      while (recv(fd, bytes, sizeof(bytes), 0) > 0) {
      }
      close(fd);
    });
  }
  ~RudeServer() {
    thread_.join();
    close(listener_);
  }
  std::string url() const { return fmt::format("http://127.0.0.1:{}", port_); }

 private:
  int listener_;
  int port_ = 0;
  std::thread thread_;
};

ErrorCode code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "did not throw";
  return ErrorCode::kSystem;
}

class HttpClientTest : public HttpTest {
 protected:
  std::string url() { return fmt::format("http://127.0.0.1:{}/v1/", port()); }
};

TEST_F(HttpClientTest, GetsAndPosts) {
  const HttpClient client(url());
  EXPECT_EQ(client.get("/health", Deadline::after(seconds(10))).status, 200);
  const auto answer = client.post("/tokenize", R"({"prompt": "a"})", Deadline::after(seconds(10)));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.headers.at("content-type"), "application/json");
  EXPECT_EQ(client.get("/none", Deadline::after(seconds(10))).status, 404);
}

TEST_F(HttpClientTest, TimesAStream) {
  const HttpClient client(url());
  std::string heard;
  const auto answer = coordinator::send_generation(
      client, R"({"messages": [{"role": "user", "content": "a"}], "max_tokens": 5})", Transport::kStream,
      [&](std::string_view text) { heard += text; }, Deadline::after(seconds(10)));
  EXPECT_EQ(answer.error, "");
  EXPECT_EQ(heard, "abcde");
  EXPECT_EQ(answer.text, "abcde");
  EXPECT_EQ(answer.num_tokens, 5);
  EXPECT_EQ(answer.num_prompt_tokens, 18);
  EXPECT_TRUE(answer.first_token_seconds.has_value());
  EXPECT_EQ(answer.gaps.size(), 4u);
}

TEST_F(HttpClientTest, TakesAWholeAnswer) {
  const HttpClient client(url());
  const auto answer = coordinator::send_generation(client, R"({"prompt": "a", "n": 2, "max_tokens": 2})",
                                                   Transport::kWhole, nullptr, Deadline::after(seconds(10)));
  EXPECT_EQ(answer.text, "ab\nab");
  EXPECT_EQ(answer.num_tokens, 4);
}

TEST_F(HttpClientTest, ReportsTheServersErrors) {
  const HttpClient client(url());
  for (const Transport transport : {Transport::kStream, Transport::kWhole}) {
    const auto refused = coordinator::send_generation(client, R"({"prompt": "a", "n": 0})", transport, nullptr,
                                                      Deadline::after(seconds(10)));
    EXPECT_EQ(refused.error, "400: 'n' must be between 1 and 128, not 0 (n)");
  }
  const auto lost = coordinator::send_generation(client, R"({"prompt": [2]})", Transport::kStream, nullptr,
                                                 Deadline::after(seconds(10)));
  EXPECT_EQ(lost.error, "the world was lost: rank 1 left");
  EXPECT_EQ(lost.text, "abc");
}

TEST_F(HttpClientTest, GivesUpAtItsDeadlineAndWhenInterrupted) {
  const HttpClient patient(url());
  const std::string hang = R"({"prompt": [0]})";
  EXPECT_EQ(code_of([&] { patient.post("/v1/completions", hang, Deadline::after(milliseconds(50))); }),
            ErrorCode::kDeadlineExceeded);
  const HttpClient interrupted(url(), "", [] { return true; });
  EXPECT_EQ(code_of([&] { interrupted.post("/v1/completions", hang, Deadline::after(seconds(20))); }),
            ErrorCode::kSystem);
  EXPECT_TRUE(jobs_->wait_for_jobs(0)) << "closing the connection cancels";
}

TEST_F(HttpClientTest, RefusesUrls) {
  for (const char* url : {"https://host", "ftp://host", "http://", "http://host:0", "http://host:99999",
                          "http://host:x", "http://a b", "http://h/path"})
    EXPECT_EQ(code_of([&] { HttpClient client(url); }), ErrorCode::kInvalidArgument) << url;
}

TEST(RudeServerTest, BecomesOneClearError) {
  const auto deadline = [] { return Deadline::after(seconds(10)); };
  {
    RudeServer server("");
    EXPECT_EQ(code_of([&] { HttpClient(server.url()).get("/", deadline()); }), ErrorCode::kPeerLost);
  }
  {
    RudeServer server("220 mail.example ESMTP\r\n\r\n");
    EXPECT_EQ(code_of([&] { HttpClient(server.url()).get("/", deadline()); }), ErrorCode::kCorrupt);
  }
  {
    RudeServer server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    EXPECT_EQ(code_of([&] { HttpClient(server.url()).get("/", deadline()); }), ErrorCode::kPeerLost);
  }
  for (const char* words : {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"choices\": 5}\n\n",
                            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: [1\n\ndata: [DONE]\n\n",
                            "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}"}) {
    RudeServer server(words);
    const auto answer = coordinator::send_generation(HttpClient(server.url()), R"({"prompt": "a"})", Transport::kStream,
                                                     nullptr, deadline());
    EXPECT_NE(answer.error, "") << words;
  }
}

TEST(SseReader, ReadsEventsInAnyPieces) {
  const std::string text = ": hello\r\ndata: one\r\n\r\ndata:two\ndata: three\n\nevent: x\n\ndata\n\n";
  for (size_t piece = 1; piece <= text.size(); ++piece) {
    SseReader reader;
    std::vector<std::string> events;
    for (size_t at = 0; at < text.size(); at += piece)
      reader.feed(std::string_view(text).substr(at, piece), [&](std::string_view data) { events.emplace_back(data); });
    EXPECT_EQ(events, (std::vector<std::string>{"one", "two\nthree"}));
  }
}

}  // namespace
}  // namespace chorale::test
