// What a session does about a peer that says no more while its answer is being made. TCP looks the same whether the
// peer closed half of the connection (shutdown, and waits for its answer) or all of it (and is gone): only a byte that
// we send tells, because the kernel of a peer that is gone answers it with a reset. So the first bytes of the status
// line, which are the same for every answer, go out ahead, one at a time.
#include <utility>

#include <poll.h>

#include <string_view>

#include "coordinator/http/session.h"

namespace chorale::coordinator::http {

namespace {

constexpr std::string_view kAnyAnswer = "HTTP/1.1 ";
constexpr std::chrono::milliseconds kFirstPause{500};  // between probes; it doubles

bool is_reset(int fd) {
  pollfd descriptor{fd, 0, 0};
  return poll(&descriptor, 1, 0) > 0 && (descriptor.revents & (POLLERR | POLLHUP)) != 0;
}

}  // namespace

void Session::on_peer_finished() {
  peer_finished_ = true;
  if (state_ != State::kHandling && state_ != State::kAnswering) return abort();  // it waits for nothing
  watch_for_reset();
  probe_peer();
}

/// After the end of what the peer says no read is pending that a reset could end.
void Session::watch_for_reset() {
  socket_.async_wait(boost::asio::ip::tcp::socket::wait_error, [self = shared_from_this()](ErrorCode error) {
    // Urgent bytes ring here too; they mean nothing, and a peer that sent some is noticed by the next write only.
    if (!error && self->state_ != State::kClosed && is_reset(self->socket_.native_handle())) self->abort();
  });
}

/// Nothing while something else is being sent: that tells as well.
void Session::probe_peer() {
  if (generation_ == nullptr || stream_begun_ || is_writing_ || num_probe_bytes_ == kAnyAnswer.size()) return;
  send(std::string(kAnyAnswer.substr(num_probe_bytes_++, 1)));
}

/// The engine has all the time it needs, but a peer that said no more is asked now and then whether it still waits.
void Session::wait_for_engine() {
  const bool asks = peer_finished_ && generation_ != nullptr && !stream_begun_ && num_probe_bytes_ < kAnyAnswer.size();
  set_deadline(asks ? kFirstPause * (1 << num_probe_bytes_) / 2 : std::chrono::milliseconds(0));
}

}  // namespace chorale::coordinator::http
