// One connection: reads requests, in order, and writes their answers. Private to coordinator/http (it includes Boost):
// server.cc makes sessions, session.cc is them. Everything runs on the io thread but parsing, which is posted to a pool
// and comes back.
//
//   kIdle --first byte--> kReading --whole request--> kHandling --generation--> kAnswering --last byte written--> kIdle
//                                                             \--reply-----------------------------/
//   Any state: peer gone, timeout or error --> closed; what was generated for it is cancelled. A peer that only says
//   no more (half a close) is not gone.
#pragma once

#include <utility>  // Asio 1.74 needs it first

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "coordinator/http/generation.h"
#include "coordinator/http/routes.h"
#include "coordinator/http/server.h"

namespace chorale::coordinator::http {

class Session;

/// 32 hexadecimal digits nobody can guess.
std::string make_request_id();

/// What all sessions of a server share. `sessions` belongs to the io thread.
struct Shared {
  explicit Shared(HttpOptions http_options)
      : options(std::move(http_options)),
        router(options.api_keys),
        short_bodies(static_cast<size_t>(options.parse_threads)),
        long_bodies(static_cast<size_t>(options.parse_threads)) {}

  const HttpOptions options;
  std::shared_ptr<const api::ApiContext> context;  // both written before the router opens; read for what it parsed
  std::shared_ptr<api::JobService> jobs;
  Router router;
  boost::asio::io_context io{1};
  boost::asio::thread_pool short_bodies, long_bodies;  // parse and tokenize them
  std::set<std::shared_ptr<Session>> sessions;
  std::mutex drain_mutex;  // guards waiting for open_requests to become 0
  std::condition_variable drained;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Shared& shared, boost::asio::ip::tcp::socket socket);
  ~Session();
  void start();
  /// Answers 503 without reading a request, and closes.
  void refuse();
  /// Closes now; cancels what runs.
  void abort();

 private:
  using Clock = std::chrono::steady_clock;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using ErrorCode = boost::system::error_code;
  enum class State { kIdle, kReading, kHandling, kAnswering, kLingering, kClosed };
  enum class Load { kNone, kRequest };
  enum class AfterWrite { kNextRequest, kClose };

  // Reading
  void read();
  void on_read(ErrorCode error, size_t num_bytes);
  void parse();
  void on_header();
  void on_parse_error(ErrorCode error);
  void next_request();

  // Answering
  void handle();
  void route_and_start();  // on the pool's thread
  void on_routed(Routed routed);
  void on_started(Result<std::unique_ptr<Generation>> generation);
  void on_wake();
  void send_reply(const Reply& reply, AfterWrite after);
  void begin_stream();
  void send_stream(std::string events);
  void end_generation();
  void set_load(Load load);
  std::string head(int status, const std::string& content_type,
                   const std::vector<std::pair<std::string, std::string>>& headers,
                   std::optional<size_t> content_length) const;

  // Writing
  void send(std::string data);
  void write_some();
  void on_written(ErrorCode error, size_t num_bytes);
  void on_all_written();
  void linger();

  // A peer that says no more, session_peer.cc
  void on_peer_finished();
  void watch_for_reset();
  void probe_peer();
  void wait_for_engine();

  // Time
  void set_deadline(std::chrono::milliseconds from_now);  // 0: none
  void wait_timer();
  void on_deadline();

  Shared& shared_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  std::optional<Clock::time_point> deadline_;
  std::optional<Clock::time_point> timer_at_;

  State state_ = State::kIdle;
  const size_t read_ahead_bytes_;
  boost::beast::flat_buffer inbox_;
  bool is_reading_ = false;
  Load load_ = Load::kNone;
  bool peer_finished_ = false;
  std::optional<Parser> parser_;
  bool header_seen_ = false;

  // The request being answered.
  Request request_;
  bool is_head_ = false;
  bool is_http_1_0_ = false;
  bool keep_alive_ = true;
  bool stream_begun_ = false;
  bool answer_ended_ = false;   // its last byte is in the outbox
  size_t num_probe_bytes_ = 0;  // of its status line, sent ahead to learn whether the peer is still there
  std::unique_ptr<Generation> generation_;
  std::optional<Clock::time_point> request_deadline_;

  std::string outbox_;  // waits behind `writing_`
  std::string writing_;
  size_t num_written_ = 0;  // of `writing_`
  bool is_writing_ = false;
};

}  // namespace chorale::coordinator::http
