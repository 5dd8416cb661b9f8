// A socket that says exactly what a test wants said, well-formed or not, and reads HTTP answers one by one. Every read
// has a deadline.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <stdexcept>
#include <string>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace chorale::test {

struct RawAnswer {
  int status = 0;                              // 0: the connection was closed instead
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined

  nlohmann::json json() const { return nlohmann::json::parse(body); }
};

class RawClient {
 public:
  explicit RawClient(int port, int receive_buffer_bytes = 0) : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_buffer_bytes > 0)
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0)
      throw std::runtime_error("cannot connect");
  }
  ~RawClient() { leave(); }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  void leave() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  /// Leaves with a reset instead of an end.
  void reset() {
    const linger at_once{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    leave();
  }
  void say_no_more() { shutdown(fd_, SHUT_WR); }

  void say(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;  // the server closed; the answer says why
      text.remove_prefix(static_cast<size_t>(sent));
    }
  }
  void post(const std::string& path, const std::string& body, const std::string& headers = "") {
    say(fmt::format(
        "POST {} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{}\r\n{}", path,
        body.size(), headers, body));
  }
  void get(const std::string& path, const std::string& headers = "") {
    say(fmt::format("GET {} HTTP/1.1\r\nHost: test\r\n{}\r\n", path, headers));
  }

  enum class Body { kExpected, kNone };
  /// The next whole answer.
  RawAnswer hear(Body body = Body::kExpected) {
    RawAnswer answer;
    if (!fill_until("\r\n\r\n")) return answer;
    const std::string head = take(buffer_.find("\r\n\r\n") + 4);
    answer.status = std::stoi(head.substr(9, 3));
    size_t at = head.find("\r\n") + 2;
    while (at + 2 < head.size()) {
      const size_t end = head.find("\r\n", at), colon = head.find(':', at);
      std::string name = head.substr(at, colon - at);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      answer.headers[name] = head.substr(colon + 2, end - colon - 2);
      at = end + 2;
    }
    if (answer.status == 100) return answer;
    if (body == Body::kNone) return answer;
    if (answer.headers.count("transfer-encoding") != 0)
      read_chunks(answer.body);
    else if (answer.headers.count("content-length") != 0)
      answer.body = take_exactly(std::stoul(answer.headers["content-length"]));
    else
      answer.body = take_rest();
    return answer;
  }
  /// Reads until the text was seen; false when the connection ended first.
  bool hear_until(const std::string& text) { return fill_until(text); }
  /// True when the server closes without saying more.
  bool is_closed() { return buffer_.empty() && !fill(); }

 private:
  bool fill() {
    pollfd waiting{fd_, POLLIN, 0};
    if (poll(&waiting, 1, 20000) <= 0) throw std::runtime_error("no answer within 20 s; so far: " + buffer_);
    char bytes[16384];
    const ssize_t got = recv(fd_, bytes, sizeof(bytes), 0);
    if (got <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(got));
    return true;
  }
  bool fill_until(const std::string& text) {
    while (buffer_.find(text) == std::string::npos)
      if (!fill()) return false;
    return true;
  }
  std::string take(size_t size) {
    std::string text = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return text;
  }
  std::string take_exactly(size_t size) {
    while (buffer_.size() < size)
      if (!fill()) break;
    return take(size);
  }
  std::string take_rest() {
    while (fill()) {
    }
    return take(buffer_.size());
  }
  void read_chunks(std::string& body) {
    while (fill_until("\r\n")) {
      const std::string line = take(buffer_.find("\r\n") + 2);
      const size_t size = std::stoul(line, nullptr, 16);
      body += take_exactly(size);
      take_exactly(2);
      if (size == 0) return;
    }
  }

  int fd_;
  std::string buffer_;
};

}  // namespace chorale::test
