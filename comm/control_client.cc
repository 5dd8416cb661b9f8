#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "comm/base/log.h"
#include "comm/control_link.h"
#include "comm/control_queue.h"
#include "comm/control_socket.h"

namespace chorale::comm {
namespace {

using Clock = Deadline::Clock;
using ReadResult = ControlConnection::ReadResult;

/// Runs the handshake on a fresh connection, on the caller's thread. Returns "" when it is done, else why it is worth
/// another try.
std::string shake_hands(ControlConnection& connection, ClientHandshake& handshake, Deadline deadline) {
  connection.send_raw(handshake.open(), {});
  for (;;) {
    if (!wait_for(connection.fd(), POLLIN, deadline)) return "the coordinator did not answer the handshake";
    const ReadResult result = connection.read();
    while (auto frame = connection.parser().next()) {
      const Bytes reply = handshake.handle(*frame);
      if (!reply.empty()) connection.send_raw(reply, {});
      if (handshake.state() == HandshakeState::kDone) return "";
      if (handshake.state() == HandshakeState::kRefused)
        fail(ErrorCode::kInvalidArgument, "the coordinator refused this worker: {}", handshake.reason());
    }
    if (result == ReadResult::kClosed) return connection.reason();
  }
}

}  // namespace

class ControlClient::Impl {
 public:
  Impl(ControlClientOptions options, std::unique_ptr<ControlConnection> connection, uint64_t epoch)
      : options_(std::move(options)),
        epoch_(epoch),
        connection_(std::move(connection)),
        queue_(options_.max_queue_bytes) {
    connection_->parser().set_max_payload(kMaxFramePayload);
    epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_) fail(ErrorCode::kSystem, "epoll_create1: {}", std::strerror(errno));
    watch(wake_up_.fd(), EPOLLIN);
    watch(connection_->fd(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    connection_->send(MessageType::kHello, epoch_, options_.hello);
    thread_ = std::thread([this] { run(); });
  }

  ~Impl() {
    stopping_.store(true);
    wake_up_.ring();
    thread_.join();
  }

  uint64_t epoch() const { return epoch_; }

  void send(MessageType type, std::span<const std::byte> payload) {
    if (!connection_->send(type, epoch_, payload)) fail_lost();
  }

  std::optional<Message> receive(Deadline deadline) {
    auto message = queue_.pop(deadline);
    if (!message && queue_.closed()) {
      // It may have been closed between the two calls, with a last message before.
      message = queue_.pop(deadline);
      if (!message) fail_lost();
    }
    if (message && message->type == MessageType::kStop) {
      took_stop_.store(true);
      wake_up_.ring();
    }
    return message;
  }

 private:
  [[noreturn]] void fail_lost() const {
    fail(ErrorCode::kPeerLost, "lost the coordinator {}:{}: {}", options_.host, options_.port, connection_->reason());
  }

  void watch(int fd, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.fd = fd;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      fail(ErrorCode::kSystem, "epoll_ctl: {}", std::strerror(errno));
  }

  void run() {
    const LinkTiming& timing = options_.timing;
    auto next_beat = Clock::now() + timing.heartbeat;
    last_heard_ = Clock::now();
    bool open = read_all();  // the coordinator's first frames may have come with its last of the handshake
    while (open && !stopping_.load()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_beat - Clock::now()).count();
      epoll_event events[2];
      const int count = epoll_wait(epoll_.get(), events, 2, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
      for (int i = 0; i < count && open; ++i) {
        if (events[i].data.fd == wake_up_.fd()) {
          wake_up_.clear();
          continue;
        }
        if ((events[i].events & EPOLLOUT) != 0) connection_->flush();
        open = read_all();
      }
      leave_if_overdue();
      if (open && Clock::now() >= next_beat) {
        open = beat();
        next_beat = Clock::now() + timing.heartbeat;
      }
    }
    if (!open) {
      lose();
      return;
    }
    const Deadline deadline = Deadline::after(std::chrono::seconds(1));
    while (connection_->flush() && !connection_->outbox_empty() && !deadline.expired())
      wait_for(connection_->fd(), POLLOUT, deadline);
  }

  /// False when the link is over; the connection knows why.
  bool read_all() {
    try {
      for (ReadResult result = ReadResult::kMore; result == ReadResult::kMore;) {
        result = connection_->read();
        if (result == ReadResult::kMore) last_heard_ = Clock::now();
        while (auto frame = connection_->parser().next()) handle(*frame);
        if (result == ReadResult::kClosed) return false;
      }
      return true;
    } catch (const Error& error) {
      connection_->break_off(error.what());
      return false;
    }
  }

  void handle(Frame& frame) {
    if (frame.epoch != epoch_)
      fail(ErrorCode::kCorrupt, "frame '{}' of epoch {}, not {}", to_string(frame.type), frame.epoch, epoch_);
    if (frame.type == MessageType::kHeartbeat) return;
    const bool ends_the_link = frame.type == MessageType::kStop || frame.type == MessageType::kRefused;
    if (frame.type < MessageType::kHello && !ends_the_link)
      fail(ErrorCode::kCorrupt, "frame '{}' is out of place", to_string(frame.type));
    if (ends_the_link) is_ending_ = true;
    const bool is_clean = frame.type == MessageType::kStop && frame.payload.empty();
    if (ends_the_link && !is_clean && !must_leave_by_) must_leave_by_ = Deadline::after(options_.lost_end);
    if (!queue_.push({frame.type, std::move(frame.payload)}))
      fail(ErrorCode::kResourceExhausted, "more than {} bytes of messages were not received", options_.max_queue_bytes);
  }

  bool beat() {
    const LinkTiming& timing = options_.timing;
    if (Clock::now() - last_heard_ > timing.heartbeat * timing.missed_heartbeats) {
      connection_->break_off(fmt::format("{} heartbeats missed", timing.missed_heartbeats));
      return false;
    }
    if (connection_->outbox_empty()) connection_->send(MessageType::kHeartbeat, epoch_, {});
    return true;
  }

  void lose() {
    if (!is_ending_) {
      if (options_.on_lost) options_.on_lost(LinkLoss::kBroken, connection_->reason());
      queue_.close();
      return;
    }
    queue_.close();
    while (!stopping_.load() && !leave_if_overdue()) {
      wait_for(wake_up_.fd(), POLLIN, must_leave_by_.value_or(Deadline::after(options_.timing.heartbeat)));
      wake_up_.clear();
    }
  }

  /// A stop is read between steps only; a step whose peers are gone does not end. True: it has called on_lost.
  bool leave_if_overdue() {
    if (!must_leave_by_ && took_stop_.load()) must_leave_by_ = Deadline::after(options_.clean_end);
    if (!must_leave_by_ || !must_leave_by_->expired() || stopping_.load()) return false;
    if (options_.on_lost) options_.on_lost(LinkLoss::kOverdue, "told to stop, but a step did not end");
    return true;
  }

  const ControlClientOptions options_;
  const uint64_t epoch_;
  std::unique_ptr<ControlConnection> connection_;
  ControlQueue<Message> queue_;
  Fd epoll_;
  WakeUp wake_up_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> took_stop_{false};  // the owner has received it

  // Thread: the link's only.
  Clock::time_point last_heard_;
  bool is_ending_ = false;                 // after a stop or a refusal
  std::optional<Deadline> must_leave_by_;  // likewise
};

ControlClient::ControlClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlClient::~ControlClient() = default;
uint64_t ControlClient::epoch() const { return impl_->epoch(); }
void ControlClient::send(MessageType type, std::span<const std::byte> payload) { impl_->send(type, payload); }
std::optional<Message> ControlClient::receive(Deadline deadline) { return impl_->receive(deadline); }

std::unique_ptr<ControlClient> ControlClient::connect(ControlClientOptions options, Deadline deadline) {
  auto pause = std::chrono::milliseconds(20);
  std::string reason = "no attempt was made";
  WakeUp nobody;  // rings never: waiting on it is a pause that ends at a deadline
  for (bool is_first = true;; is_first = false) {
    const Deadline attempt(std::min(deadline.when(), Clock::now() + options.timing.handshake_timeout));
    Fd fd = connect_to(options.host, options.port, attempt, reason);
    if (fd) {
      auto connection =
          std::make_unique<ControlConnection>(std::move(fd), kMaxHandshakePayload, options.max_outbox_bytes);
      ClientHandshake handshake(options.secret, options.epoch, options.rank, random_nonce());
      reason = shake_hands(*connection, handshake, attempt);
      if (reason.empty())
        return std::unique_ptr<ControlClient>(
            new ControlClient(std::make_unique<Impl>(std::move(options), std::move(connection), handshake.epoch())));
    }
    if (deadline.expired())
      fail(ErrorCode::kDeadlineExceeded, "no coordinator at {}:{}: {}", options.host, options.port, reason);
    if (is_first)
      log_warn("no coordinator at {}:{} yet: {}; trying for {} s", options.host, options.port, reason,
               std::chrono::ceil<std::chrono::seconds>(deadline.remaining()).count());
    const auto until = std::min(deadline.when(), Clock::now() + pause);
    wait_for(nobody.fd(), POLLIN, Deadline(until));
    pause = std::min(pause * 2, std::chrono::milliseconds(500));
  }
}

}  // namespace chorale::comm
