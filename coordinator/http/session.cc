#include "coordinator/http/session.h"

#include <algorithm>
#include <sstream>

#include <boost/asio/post.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/write.hpp>

#include "comm/base/log.h"
#include "comm/base/version.h"
#include "coordinator/http/request_target.h"

namespace chorale::coordinator::http {

namespace asio = boost::asio;
namespace beast_http = boost::beast::http;

std::string make_request_id() { return fmt::format("{:016x}{:016x}", api::random_seed(), api::random_seed()); }

namespace {

constexpr size_t kReadBytes = 16 << 10;
constexpr size_t kReadAheadBytes = 64 << 10;  // of pipelined requests while one is answered

/// The client's id if it is harmless in a header, a log line and JSON; else a new one.
std::string request_id_of(boost::beast::string_view given) {
  const auto harmless = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("-_.:").find(c) != std::string_view::npos;
  };
  if (!given.empty() && given.size() <= 128 && std::all_of(given.begin(), given.end(), harmless))
    return std::string(given);
  return make_request_id();
}

std::string text_of(boost::beast::string_view view) { return std::string(view.data(), view.size()); }

}  // namespace

Session::Session(Shared& shared, asio::ip::tcp::socket socket)
    : shared_(shared),
      socket_(std::move(socket)),
      timer_(shared.io),
      read_ahead_bytes_(std::max(kReadAheadBytes, shared.options.max_header_bytes + kReadBytes)),
      inbox_(read_ahead_bytes_ + 2 * kReadBytes) {
  ++shared_.router.counters().open_connections;
}

Session::~Session() { --shared_.router.counters().open_connections; }

void Session::start() {
  ErrorCode ignored;
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  if (shared_.options.send_buffer_bytes > 0)
    socket_.set_option(asio::socket_base::send_buffer_size(shared_.options.send_buffer_bytes), ignored);
  next_request();
  read();
}

void Session::refuse() {
  keep_alive_ = false;
  request_.request_id = make_request_id();
  api::ApiError error = api::make_error(
      503, fmt::format("the server has its most connections open ({})", shared_.options.max_connections),
      "too_many_connections");
  error.retry_after_s = 1;
  send_reply(error_reply(error), AfterWrite::kClose);
}

void Session::abort() {
  if (state_ == State::kClosed) return;
  if (state_ == State::kHandling || (state_ == State::kAnswering && !answer_ended_))
    ++shared_.router.counters().disconnects;
  state_ = State::kClosed;
  end_generation();
  set_load(Load::kNone);
  ErrorCode ignored;
  socket_.close(ignored);
  timer_.cancel();
  shared_.sessions.erase(shared_from_this());
}

// Reading

/// One read is always pending, also while an answer is made: so a client that says no more is noticed at once.
void Session::read() {
  if (is_reading_ || peer_finished_ || state_ == State::kClosed) return;
  if (state_ == State::kLingering) inbox_.clear();
  if (inbox_.size() >= read_ahead_bytes_) return;  // on_all_written reads on
  is_reading_ = true;
  socket_.async_read_some(inbox_.prepare(kReadBytes), [self = shared_from_this()](ErrorCode error, size_t num_bytes) {
    self->on_read(error, num_bytes);
  });
}

void Session::on_read(ErrorCode error, size_t num_bytes) {
  is_reading_ = false;
  if (state_ == State::kClosed) return;
  if (error == asio::error::eof) return on_peer_finished();
  if (error) return abort();
  inbox_.commit(num_bytes);
  if (state_ == State::kIdle || state_ == State::kReading) parse();
  read();
}

void Session::next_request() {
  state_ = State::kIdle;
  parser_.emplace();
  parser_->eager(true);
  parser_->header_limit(static_cast<uint32_t>(shared_.options.max_header_bytes));
  parser_->body_limit(shared_.options.max_body_bytes);
  header_seen_ = false;
  stream_begun_ = false;
  answer_ended_ = false;
  num_probe_bytes_ = 0;
  request_ = Request{};
  is_head_ = false;
  set_deadline(shared_.options.idle_timeout);
}

void Session::parse() {
  while (state_ == State::kIdle || state_ == State::kReading) {
    if (inbox_.size() == 0) return;
    if (state_ == State::kIdle) {
      state_ = State::kReading;
      set_deadline(shared_.options.read_timeout);
    }
    ErrorCode error;
    const size_t num_used = parser_->put(inbox_.data(), error);
    inbox_.consume(num_used);
    if (error && error != beast_http::error::need_more) return on_parse_error(error);
    if (parser_->is_header_done() && !header_seen_) on_header();
    if (parser_->is_done()) return handle();
    if (error == beast_http::error::need_more || num_used == 0) return;
  }
}

void Session::on_header() {
  header_seen_ = true;
  const auto& message = parser_->get();
  if (message.version() >= 11 && boost::beast::iequals(message[beast_http::field::expect], "100-continue") &&
      !parser_->is_done())
    send("HTTP/1.1 100 Continue\r\n\r\n");
}

void Session::on_parse_error(ErrorCode error) {
  int status = 400;
  std::string text = "the request is not valid HTTP/1.1: " + error.message();
  if (error == beast_http::error::header_limit) {
    status = 431;
    text = fmt::format("the request's header is larger than {} bytes", shared_.options.max_header_bytes);
  } else if (error == beast_http::error::body_limit) {
    status = 413;
    text = fmt::format("the request's body is larger than {} bytes", shared_.options.max_body_bytes);
  }
  request_.request_id = request_id_of(parser_->is_header_done() ? parser_->get()["X-Request-Id"] : "");
  send_reply(error_reply(api::make_error(status, text)), AfterWrite::kClose);
}

// Answering

void Session::handle() {
  auto message = parser_->release();
  state_ = State::kHandling;
  set_load(Load::kRequest);
  set_deadline(std::chrono::milliseconds(0));
  is_http_1_0_ = message.version() < 11;
  keep_alive_ = message.keep_alive();
  is_head_ = message.method() == beast_http::verb::head;
  request_.method = text_of(message.method_string());
  request_.target = origin_form(text_of(message.target()));
  request_.authorization = text_of(message[beast_http::field::authorization]);
  request_.content_type = text_of(message[beast_http::field::content_type]);
  request_.content_encoding = text_of(message[beast_http::field::content_encoding]);
  request_.request_id = request_id_of(message["X-Request-Id"]);
  request_.body = std::move(message.body());
  request_deadline_.reset();
  std::vector<std::string> hosts;
  for (auto [at, end] = message.equal_range(beast_http::field::host); at != end; ++at)
    hosts.push_back(text_of(at->value()));
  if (const auto objection = host_objection(hosts, is_http_1_0_ ? HttpVersion::k10 : HttpVersion::k11))
    return send_reply(error_reply(api::make_error(400, *objection)), AfterWrite::kClose);
  if (shared_.options.request_timeout.count() > 0) request_deadline_ = Clock::now() + shared_.options.request_timeout;
  if (shared_.router.handled_on(request_) == HandledOn::kConnectionThread)
    return on_routed(shared_.router.route(request_));

  // The request stays untouched until the pool's answer is back: the state is kHandling until then.
  const bool is_long = request_.body.size() >= shared_.options.long_body_bytes;
  asio::post(is_long ? shared_.long_bodies : shared_.short_bodies, [self = shared_from_this()] {
    try {
      self->route_and_start();
    } catch (const std::exception& error) {  // out of memory, say: this request's failure only
      const Failure failure{chorale::ErrorCode::kSystem, error.what(), ""};
      asio::post(self->shared_.io, [self, failure] { self->on_started(failure); });
    }
  });
}

void Session::route_and_start() {
  const auto self = shared_from_this();
  auto routed = self->shared_.router.route(self->request_);
  std::string().swap(self->request_.body);
  if (auto* reply = std::get_if<Reply>(&routed)) {
    asio::post(self->shared_.io, [self, reply = std::move(*reply)]() mutable { self->on_routed(std::move(reply)); });
    return;
  }
  auto& parsed = std::get<api::ParsedRequest>(routed);
  for (JobRequest& job : parsed.jobs) job.deadline = self->request_deadline_;
  const GenerationOptions options{self->request_.request_id, self->shared_.options.stream_buffer_bytes};
  auto wake = [weak = std::weak_ptr(self), &io = self->shared_.io] {
    asio::post(io, [weak] {
      if (const auto session = weak.lock()) session->on_wake();
    });
  };
  auto started = std::make_shared<Result<std::unique_ptr<Generation>>>(
      Generation::start(std::move(parsed), self->shared_.context, self->shared_.jobs, options, std::move(wake)));
  asio::post(self->shared_.io, [self, started] { self->on_started(std::move(*started)); });
}

void Session::on_routed(Routed routed) {
  if (state_ == State::kClosed) return;
  send_reply(std::get<Reply>(routed), AfterWrite::kNextRequest);
}

void Session::on_started(Result<std::unique_ptr<Generation>> generation) {
  if (state_ == State::kClosed) return;  // a generation that started is closed by its destructor
  if (!generation)
    return send_reply(error_reply(api::to_api_error(generation.failure(), api::FailedAt::kSubmit)),
                      AfterWrite::kNextRequest);
  generation_ = std::move(*generation);
  state_ = State::kAnswering;
  on_wake();
  if (peer_finished_) probe_peer();
}

void Session::on_wake() {
  if (generation_ == nullptr || state_ != State::kAnswering || !generation_->pump()) return;
  generation_->set_unsent(outbox_.size() + writing_.size() - num_written_);  // tokens without text make nothing to send
  api::Answer& answer = generation_->answer();
  if (const auto& failure = generation_->failure()) {
    const auto error = api::to_api_error(*failure, api::FailedAt::kRun);
    const std::string events = answer.take_events();
    if (!stream_begun_ && events.empty()) return send_reply(error_reply(error), AfterWrite::kNextRequest);
    send_stream(events + api::Answer::error_events(error));
    return send_stream("");
  }
  if (answer.streams()) {
    std::string events = answer.take_events();
    const bool complete = answer.is_complete();
    if (!events.empty()) send_stream(std::move(events));
    if (complete && generation_ != nullptr) send_stream("");
  } else if (answer.is_complete()) {
    Reply reply;
    reply.body = answer.whole();
    send_reply(reply, AfterWrite::kNextRequest);
  }
}

void Session::end_generation() {
  if (generation_ == nullptr) return;
  generation_->close();
  generation_.reset();
}

/// Loaded from a request's last byte read to its answer's last byte written: a drain waits for that.
void Session::set_load(Load load) {
  if (load_ == load) return;
  load_ = load;
  const std::lock_guard lock(shared_.drain_mutex);
  shared_.router.counters().open_requests += load == Load::kRequest ? 1 : -1;
  if (shared_.router.counters().open_requests == 0) shared_.drained.notify_all();
}

std::string Session::head(int status, const std::string& content_type,
                          const std::vector<std::pair<std::string, std::string>>& headers,
                          std::optional<size_t> content_length) const {
  beast_http::response<beast_http::empty_body> response;
  response.version(11);
  response.result(static_cast<unsigned>(status));
  response.set(beast_http::field::server, std::string("chorale/") + kVersion);
  response.set(beast_http::field::content_type, content_type);
  response.set("X-Request-Id", request_.request_id);
  for (const auto& [name, value] : headers) response.set(name, value);
  if (content_length)
    response.content_length(*content_length);
  else if (!is_http_1_0_)
    response.chunked(true);
  if (!keep_alive_)
    response.set(beast_http::field::connection, "close");
  else if (is_http_1_0_)
    response.set(beast_http::field::connection, "keep-alive");
  std::ostringstream out;
  out << response.base();
  return out.str().substr(num_probe_bytes_);  // every answer begins alike
}

void Session::send_reply(const Reply& reply, AfterWrite after) {
  auto& counters = shared_.router.counters();
  ++counters.requests;
  if (reply.status >= 500)
    ++counters.errors_5xx;
  else if (reply.status >= 400)
    ++counters.errors_4xx;
  log_debug("{} {} {} {}", request_.request_id, request_.method, request_.target.substr(0, 200), reply.status);
  if (after == AfterWrite::kClose || shared_.router.is_draining()) keep_alive_ = false;
  state_ = State::kAnswering;
  answer_ended_ = true;
  end_generation();
  std::string data = head(reply.status, reply.content_type, reply.headers, reply.body.size());
  if (!is_head_) data += reply.body;
  send(std::move(data));
}

/// The status line waits for the first event, so that a job which fails before it still gets a status of its own.
void Session::begin_stream() {
  ++shared_.router.counters().requests;
  stream_begun_ = true;
  if (is_http_1_0_ || shared_.router.is_draining()) keep_alive_ = false;
  outbox_ += head(200, "text/event-stream; charset=utf-8", {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}},
                  std::nullopt);
}

/// Empty events end the stream.
void Session::send_stream(std::string events) {
  if (!stream_begun_) begin_stream();
  const bool last = events.empty();
  if (is_http_1_0_) {
    // Without chunks, closing the connection ends the body.
  } else if (last) {
    events = "0\r\n\r\n";
  } else {
    events = fmt::format("{:x}\r\n", events.size()) + events + "\r\n";
  }
  if (last) {
    answer_ended_ = true;
    end_generation();
    log_debug("{} {} {} 200 (stream)", request_.request_id, request_.method, request_.target);
  }
  send(std::move(events));
}

}  // namespace chorale::coordinator::http
