// The writing half of a session, and its one timer.
#include <utility>

#include "coordinator/http/session.h"

namespace chorale::coordinator::http {

namespace asio = boost::asio;

namespace {
constexpr std::chrono::milliseconds kLingerTime{2000};
}  // namespace

void Session::send(std::string data) {
  outbox_ += data;
  if (generation_ != nullptr) generation_->set_unsent(outbox_.size() + writing_.size() - num_written_);
  if (!is_writing_) {
    set_deadline(shared_.options.write_timeout);
    write_some();
  }
}

void Session::write_some() {
  if (num_written_ == writing_.size()) {
    writing_.clear();
    writing_.swap(outbox_);
    num_written_ = 0;
    if (writing_.empty()) {
      is_writing_ = false;
      return on_all_written();
    }
  }
  is_writing_ = true;
  socket_.async_write_some(
      asio::buffer(writing_.data() + num_written_, writing_.size() - num_written_),
      [self = shared_from_this()](ErrorCode error, size_t num_bytes) { self->on_written(error, num_bytes); });
}

void Session::on_written(ErrorCode error, size_t num_bytes) {
  if (state_ == State::kClosed) return;
  if (error) return abort();
  num_written_ += num_bytes;
  set_deadline(shared_.options.write_timeout);
  if (generation_ != nullptr) generation_->set_unsent(outbox_.size() + writing_.size() - num_written_);
  write_some();
}

void Session::on_all_written() {
  if (state_ == State::kReading) return set_deadline(shared_.options.read_timeout);  // 100 Continue is out
  if (!answer_ended_) return wait_for_engine();
  set_load(Load::kNone);
  if (!keep_alive_) return linger();
  next_request();
  parse();
  if (peer_finished_ && (state_ == State::kIdle || state_ == State::kReading)) return abort();
  read();
}

/// Closing with unread bytes would reset the connection and could take the answer away from the client: first say that
/// nothing follows, then read what still comes, for a moment.
void Session::linger() {
  ErrorCode error;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, error);
  if (error || peer_finished_) return abort();
  state_ = State::kLingering;
  set_deadline(kLingerTime);
  read();
}

void Session::set_deadline(std::chrono::milliseconds from_now) {
  if (from_now.count() == 0) {
    deadline_.reset();
    return;
  }
  deadline_ = Clock::now() + from_now;
  if (!timer_at_ || *deadline_ < *timer_at_) wait_timer();  // else the pending wait looks again when it ends
}

void Session::wait_timer() {
  timer_at_ = deadline_;
  timer_.expires_at(*deadline_);
  timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (error || self->state_ == State::kClosed) return;  // replaced by an earlier one
    self->timer_at_.reset();
    if (!self->deadline_) return;
    if (Clock::now() < *self->deadline_) return self->wait_timer();
    self->on_deadline();
  });
}

void Session::on_deadline() {
  deadline_.reset();
  if (state_ == State::kAnswering && !answer_ended_ && !is_writing_) return probe_peer();
  if (state_ == State::kReading && !is_writing_) {
    request_.request_id = make_request_id();
    const auto text = fmt::format("the request was not complete after {} ms", shared_.options.read_timeout.count());
    return send_reply(error_reply(api::make_error(408, text)), AfterWrite::kClose);
  }
  abort();
}

}  // namespace chorale::coordinator::http
