#include "coordinator/http/client.h"

#include <utility>  // Asio 1.74 needs it first

#include <algorithm>
#include <optional>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace chorale::coordinator::http {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;
using asio::ip::tcp;
using BoostError = boost::system::error_code;

namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr uint64_t kMaxAnswerBytes = uint64_t{4} << 30;

/// One connection and its one request. Each step is an asynchronous operation that is run until it ends, the deadline,
/// or Ctrl-C.
class Connection {
 public:
  using Parser = beast_http::response_parser<beast_http::string_body>;

  Connection(std::string name, Deadline deadline, const HttpClient::Interrupted& interrupted)
      : name_(std::move(name)), deadline_(deadline), interrupted_(interrupted), socket_(io_) {
    parser_.eager(true);
    parser_.body_limit(kMaxAnswerBytes);
  }

  void connect(const std::string& host, const std::string& port) {
    BoostError error;
    tcp::resolver resolver(io_);
    const auto endpoints = resolver.resolve(host, port, error);
    if (error) fail(ErrorCode::kPeerLost, "cannot find the host of {}: {}", name_, error.message());
    std::optional<BoostError> result;
    asio::async_connect(socket_, endpoints, [&](BoostError e, const tcp::endpoint&) { result = e; });
    if (const BoostError e = run(result))
      fail(ErrorCode::kPeerLost, "cannot connect to {}: {}; is the server running there?", name_, e.message());
    socket_.set_option(tcp::no_delay(true), error);
  }

  void write(const std::string& text) {
    std::optional<BoostError> result;
    asio::async_write(socket_, asio::buffer(text), [&](BoostError e, size_t) { result = e; });
    // A server that refuses a request may close before it has read it all: its answer says why.
    (void)run(result);
  }

  /// Reads until the answer grew or ended.
  void read_some() {
    std::optional<BoostError> result;
    size_t num_bytes = 0;
    socket_.async_read_some(buffer_.prepare(kReadBytes), [&](BoostError e, size_t n) {
      result = e;
      num_bytes = n;
    });
    BoostError error = run(result);
    buffer_.commit(num_bytes);
    if (error == asio::error::eof && parser_.got_some()) {
      parser_.put_eof(error);
      if (error) fail(ErrorCode::kPeerLost, "{} closed the connection in the middle of its answer", name_);
      return;
    }
    if (error) fail(ErrorCode::kPeerLost, "{} closed the connection without an answer: {}", name_, error.message());
    while (buffer_.size() > 0 && !parser_.is_done()) {
      const size_t used = parser_.put(buffer_.data(), error);
      buffer_.consume(used);
      if (error == beast_http::error::need_more) return;
      if (error) fail(ErrorCode::kCorrupt, "{} did not answer in HTTP: {}", name_, error.message());
      if (used == 0) return;
    }
  }

  Parser& parser() { return parser_; }

 private:
  BoostError run(std::optional<BoostError>& result) {
    io_.restart();
    while (!result) {
      const auto slice = std::min<std::chrono::nanoseconds>(deadline_.remaining(), std::chrono::milliseconds(100));
      io_.run_one_for(slice);
      if (result) break;
      const bool interrupted = interrupted_ && interrupted_();
      if (!interrupted && !deadline_.expired()) continue;
      BoostError ignored;
      socket_.close(ignored);
      io_.run();  // the operation ends before its variables do
      if (interrupted) fail(ErrorCode::kSystem, "interrupted");
      fail(ErrorCode::kDeadlineExceeded, "{} did not answer in time", name_);
    }
    return *result;
  }

  std::string name_;
  Deadline deadline_;
  const HttpClient::Interrupted& interrupted_;
  asio::io_context io_{1};
  tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
  Parser parser_;
};

}  // namespace

struct HttpClient::Call {
  const char* method;
  const std::string& path;
  const std::string& body;
  const std::function<void(std::string_view)>& on_event;
  Deadline deadline;
};

HttpClient::HttpClient(const std::string& url, std::string api_key, Interrupted interrupted)
    : api_key_(std::move(api_key)), interrupted_(std::move(interrupted)) {
  const auto refuse = [&](const char* why) {
    fail(ErrorCode::kInvalidArgument, "the URL '{}' {}; expected http://HOST:PORT", url, why);
  };
  std::string rest = url;
  if (rest.starts_with("http://"))
    rest.erase(0, 7);
  else if (rest.find("://") != std::string::npos)
    refuse("is not plain http");
  while (rest.ends_with("/")) rest.pop_back();
  if (rest.ends_with("/v1")) rest.resize(rest.size() - 3);
  const size_t bracket = rest.find(']');  // [::1]:8000
  const size_t colon = rest.find(':', bracket == std::string::npos ? 0 : bracket);
  host_ = rest.substr(0, colon);
  port_ = colon == std::string::npos ? "80" : rest.substr(colon + 1);
  if (bracket != std::string::npos && host_.starts_with("[")) host_ = host_.substr(1, bracket - 1);
  if (host_.empty() || host_.find_first_of("/?#@ ") != std::string::npos) refuse("has no valid host");
  const bool digits = !port_.empty() && port_.size() <= 5 && port_.find_first_not_of("0123456789") == std::string::npos;
  if (!digits || std::stoi(port_) < 1 || std::stoi(port_) > 65535) refuse("has no valid port");
}

HttpAnswer HttpClient::call(const Call& call) const {
  const std::string name = fmt::format("http://{}:{}", host_, port_);
  Connection connection(name, call.deadline, interrupted_);
  connection.connect(host_, port_);
  std::string text = fmt::format("{} {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\nUser-Agent: chorale\r\n",
                                 call.method, call.path, host_, port_);
  if (!api_key_.empty()) text += "Authorization: Bearer " + api_key_ + "\r\n";
  if (!call.body.empty())
    text += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n", call.body.size());
  connection.write(text + "\r\n" + call.body);

  auto& parser = connection.parser();
  SseReader events;
  const auto is_stream = [&] {
    return call.on_event && parser.is_header_done() &&
           parser.get()[beast_http::field::content_type].starts_with("text/event-stream");
  };
  while (!parser.is_done()) {
    connection.read_some();
    if (!is_stream()) continue;
    events.feed(parser.get().body(), call.on_event);
    parser.get().body().clear();
  }
  HttpAnswer answer;
  answer.status = static_cast<int>(parser.get().result_int());
  for (const auto& field : parser.get()) {
    std::string key(field.name_string().data(), field.name_string().size());
    std::transform(key.begin(), key.end(), key.begin(), [](unsigned char c) { return std::tolower(c); });
    answer.headers[key] = std::string(field.value().data(), field.value().size());
  }
  answer.body = std::move(parser.get().body());
  return answer;
}

HttpAnswer HttpClient::get(const std::string& path, Deadline deadline) const {
  return call({"GET", path, std::string(), nullptr, deadline});
}

HttpAnswer HttpClient::post(const std::string& path, const std::string& json, Deadline deadline) const {
  return call({"POST", path, json, nullptr, deadline});
}

HttpAnswer HttpClient::post_stream(const std::string& path, const std::string& json,
                                   const std::function<void(std::string_view)>& on_event, Deadline deadline) const {
  return call({"POST", path, json, on_event, deadline});
}

}  // namespace chorale::coordinator::http
