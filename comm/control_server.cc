#include <netdb.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <thread>
#include <vector>

#include "comm/base/log.h"
#include "comm/control_link.h"
#include "comm/control_queue.h"
#include "comm/control_socket.h"

namespace chorale::comm {
namespace {

using Clock = Deadline::Clock;

constexpr uint64_t kListenerId = 0;
constexpr uint64_t kWakeUpId = 1;
constexpr uint64_t kFirstPeerId = 2;

enum class Stage { kStranger, kProved, kJoined };

struct Peer {
  Peer(uint64_t id, Fd fd, std::string address, const ServerHandshake::Expectation& expectation,
       size_t max_outbox_bytes)
      : id(id),
        address(std::move(address)),
        connection(std::move(fd), kMaxHandshakePayload, max_outbox_bytes),
        handshake(expectation, random_nonce()) {}
  const uint64_t id;
  const std::string address;
  ControlConnection connection;
  ServerHandshake handshake;
  Stage stage = Stage::kStranger;
  int rank = -1;
  const Clock::time_point accepted = Clock::now();
  Clock::time_point last_heard = accepted;
};

std::string address_of(const sockaddr_storage& address, socklen_t size) {
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof(host), port, sizeof(port),
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "unknown address";
  return fmt::format("{}:{}", host, port);
}

}  // namespace

class ControlServer::Impl {
 public:
  explicit Impl(const ControlServerOptions& options)
      : options_(options), listener_(listen_on(options.host, options.port)), queue_(options.max_queue_bytes) {
    CHECK_GE(options.num_ranks, 1);
    CHECK(!options.secret.empty());
    ranks_.resize(options.num_ranks);
    expectation_.secret = options.secret;
    expectation_.epoch = options.epoch;
    expectation_.num_ranks = options.num_ranks;
    expectation_.objection = [this](int rank) {
      return find_rank(rank) ? fmt::format("rank {} is connected already", rank) : std::string();
    };
    epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
    if (!epoll_) fail(ErrorCode::kSystem, "epoll_create1: {}", std::strerror(errno));
    watch(wake_up_.fd(), kWakeUpId, EPOLLIN);
  }
  ~Impl() { close(); }

  uint16_t port() const { return listener_.port; }

  void start(Handler handler, Objection objection) {
    CHECK(!thread_.joinable());
    handler_ = std::move(handler);
    objection_ = std::move(objection);
    watch(listener_.fd.get(), kListenerId, EPOLLIN);
    thread_ = std::thread([this] { run(); });
  }

  std::optional<LinkEvent> wait(Deadline deadline) { return queue_.pop(deadline); }

  bool send(int rank, MessageType type, std::span<const std::byte> payload) {
    const auto peer = joined_peer(rank);
    return peer && peer->connection.send(type, options_.epoch, payload);
  }

  std::shared_ptr<Peer> joined_peer(int rank) const {
    const std::lock_guard lock(ranks_mutex_);
    CHECK(rank >= 0 && rank < options_.num_ranks);
    return ranks_[rank].joined ? ranks_[rank].peer : nullptr;
  }

  int num_ranks() const { return options_.num_ranks; }

  void close() {
    if (thread_.joinable()) {
      stopping_.store(true);
      wake_up_.ring();
      thread_.join();
    }
    queue_.close();
  }

 private:
  struct RankSlot {
    std::shared_ptr<Peer> peer;
    bool joined = false;
  };

  std::shared_ptr<Peer> find_rank(int rank) const {
    const std::lock_guard lock(ranks_mutex_);
    return ranks_[rank].peer;
  }
  void set_rank(int rank, RankSlot slot) {
    const std::lock_guard lock(ranks_mutex_);
    ranks_[rank] = std::move(slot);
  }

  void watch(int fd, uint64_t id, uint32_t events) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = id;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0)
      fail(ErrorCode::kSystem, "epoll_ctl: {}", std::strerror(errno));
  }
  void unwatch(int fd) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  void run() {
    auto next_beat = Clock::now() + options_.timing.heartbeat;
    while (!stopping_.load()) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(next_beat - Clock::now()).count();
      epoll_event events[64];
      const int count = epoll_wait(epoll_.get(), events, 64, static_cast<int>(std::clamp<int64_t>(left, 0, 60'000)));
      for (int i = 0; i < count; ++i) {
        if (events[i].data.u64 == kListenerId) accept_strangers();
        if (events[i].data.u64 == kWakeUpId) wake_up_.clear();
        if (events[i].data.u64 >= kFirstPeerId) serve(events[i].data.u64, events[i].events);
      }
      // After reading: what a peer sent while this thread was kept off its core still counts.
      if (Clock::now() >= next_beat) {
        beat();
        next_beat = Clock::now() + options_.timing.heartbeat;
      }
    }
    finish();
  }

  void accept_strangers() {
    for (;;) {
      sockaddr_storage address{};
      socklen_t size = sizeof(address);
      Fd fd(accept4(listener_.fd.get(), reinterpret_cast<sockaddr*>(&address), &size, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!fd) {
        if (errno == EINTR || errno == ECONNABORTED) continue;
        if (errno != EAGAIN) pause_listening();
        return;
      }
      const auto strangers = std::ranges::count_if(peers_, [](auto& p) { return p.second->stage == Stage::kStranger; });
      if (strangers >= options_.max_strangers) {
        log_warn("control link: too many unproven connections, closing the one from {}", address_of(address, size));
        continue;
      }
      tune_socket(fd.get());
      const int raw = fd.get();
      const uint64_t id = next_id_++;
      peers_[id] =
          std::make_shared<Peer>(id, std::move(fd), address_of(address, size), expectation_, options_.max_outbox_bytes);
      watch(raw, id, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    }
  }

  /// Out of descriptors: the listener would report itself for ever. It is watched again at the next beat.
  void pause_listening() {
    log_warn("control link: cannot accept a connection: {}", std::strerror(errno));
    unwatch(listener_.fd.get());
    listening_paused_ = true;
  }

  void serve(uint64_t id, uint32_t events) {
    const auto found = peers_.find(id);
    if (found == peers_.end()) return;
    const std::shared_ptr<Peer> peer = found->second;
    try {
      if ((events & EPOLLOUT) != 0) peer->connection.flush();
      for (auto result = ControlConnection::ReadResult::kMore; result == ControlConnection::ReadResult::kMore;) {
        result = peer->connection.read();
        if (result == ControlConnection::ReadResult::kClosed) return drop(peer, peer->connection.reason());
        if (result == ControlConnection::ReadResult::kMore) peer->last_heard = Clock::now();
        while (auto frame = peer->connection.parser().next()) {
          handle(peer, *frame);
          if (peers_.count(id) == 0) return;
        }
      }
    } catch (const Error& error) {
      drop(peer, error.what());
    }
  }

  void handle(const std::shared_ptr<Peer>& peer, Frame& frame) {
    if (peer->stage == Stage::kStranger) return shake_hands(peer, frame);
    if (frame.epoch != options_.epoch)
      fail(ErrorCode::kCorrupt, "frame '{}' of epoch {}, not {}", to_string(frame.type), frame.epoch, options_.epoch);
    if (frame.type == MessageType::kHeartbeat) return;
    if (frame.type < MessageType::kHello || (frame.type == MessageType::kHello) != (peer->stage == Stage::kProved))
      fail(ErrorCode::kCorrupt, "frame '{}' is out of place", to_string(frame.type));
    if (peer->stage == Stage::kProved) {
      if (const std::string reason = objection_to(*peer, frame.payload); !reason.empty()) {
        peer->connection.send(MessageType::kRefused, options_.epoch, std::as_bytes(std::span(reason)));
        return drop(peer, reason);
      }
      peer->stage = Stage::kJoined;
      set_rank(peer->rank, {peer, true});
      emit({LinkEvent::Kind::kJoined, peer->rank, frame.type, std::move(frame.payload), ""});
    } else if (!emit({LinkEvent::Kind::kMessage, peer->rank, frame.type, std::move(frame.payload), ""})) {
      fail(ErrorCode::kResourceExhausted, "it sends faster than the coordinator takes: the queue is full");
    }
  }

  std::string objection_to(const Peer& peer, const Bytes& hello) const {
    try {
      return objection_ ? objection_(peer.rank, hello) : "";
    } catch (const Error& error) {  // a hello that cannot be read
      return error.what();
    }
  }

  void shake_hands(const std::shared_ptr<Peer>& peer, const Frame& frame) {
    const Bytes reply = peer->handshake.handle(frame);
    peer->connection.send_raw(reply, {});
    if (peer->handshake.state() == HandshakeState::kRefused) drop(peer, peer->handshake.reason());
    if (peer->handshake.state() != HandshakeState::kDone) return;
    peer->stage = Stage::kProved;
    peer->rank = peer->handshake.rank();
    peer->connection.parser().set_max_payload(kMaxFramePayload);
    set_rank(peer->rank, {peer, false});
  }

  bool emit(LinkEvent event) {
    if (handler_) return handler_(std::move(event));
    if (event.kind == LinkEvent::Kind::kMessage) return queue_.push(std::move(event));
    queue_.push_always(std::move(event));
    return true;
  }

  void drop(const std::shared_ptr<Peer>& peer, const std::string& reason) {
    if (peers_.erase(peer->id) == 0) return;
    unwatch(peer->connection.fd());
    if (peer->rank >= 0) set_rank(peer->rank, {});  // first: a peer that sees its link closed is connected no more
    peer->connection.break_off(reason);
    if (peer->stage == Stage::kJoined) {
      emit({LinkEvent::Kind::kLost, peer->rank, MessageType::kFault, {}, reason});
    } else {
      log_warn("control link: refused {}: {}", peer->address, reason);
    }
  }

  void beat() {
    if (listening_paused_) {
      watch(listener_.fd.get(), kListenerId, EPOLLIN);
      listening_paused_ = false;
    }
    const auto now = Clock::now();
    const LinkTiming& timing = options_.timing;
    std::vector<std::pair<std::shared_ptr<Peer>, std::string>> lost;
    for (auto& [id, peer] : peers_) {
      if (peer->stage != Stage::kJoined) {
        if (now - peer->accepted > timing.handshake_timeout)
          lost.emplace_back(peer, fmt::format("no proof of identity within {} ms", timing.handshake_timeout.count()));
      } else if (now - peer->last_heard > timing.heartbeat * timing.missed_heartbeats) {
        lost.emplace_back(peer, fmt::format("{} heartbeats missed", timing.missed_heartbeats));
      } else if (peer->connection.outbox_empty()) {
        peer->connection.send(MessageType::kHeartbeat, options_.epoch, {});
      }
    }
    for (auto& [peer, reason] : lost) drop(peer, reason);
  }

  void finish() {
    const Deadline deadline = Deadline::after(std::chrono::seconds(1));
    for (auto& [id, peer] : peers_) {
      while (peer->connection.flush() && !peer->connection.outbox_empty() && !deadline.expired())
        wait_for(peer->connection.fd(), POLLOUT, deadline);
      peer->connection.break_off("the coordinator closed the link");
    }
    const std::lock_guard lock(ranks_mutex_);
    for (RankSlot& slot : ranks_) slot = {};
    peers_.clear();
  }

  const ControlServerOptions options_;
  ServerHandshake::Expectation expectation_;
  Listener listener_;
  Fd epoll_;
  WakeUp wake_up_;
  ControlQueue<LinkEvent> queue_;
  Handler handler_;
  Objection objection_;
  std::thread thread_;
  std::atomic<bool> stopping_{false};

  // Thread: the link's only.
  std::map<uint64_t, std::shared_ptr<Peer>> peers_;
  uint64_t next_id_ = kFirstPeerId;
  bool listening_paused_ = false;

  mutable std::mutex ranks_mutex_;  // guards ranks_
  std::vector<RankSlot> ranks_;     // [num_ranks]
};

ControlServer::ControlServer(const ControlServerOptions& options) : impl_(std::make_unique<Impl>(options)) {}
ControlServer::~ControlServer() = default;
uint16_t ControlServer::port() const { return impl_->port(); }
void ControlServer::start(Handler handler, Objection objection) {
  impl_->start(std::move(handler), std::move(objection));
}
std::optional<LinkEvent> ControlServer::wait(Deadline deadline) { return impl_->wait(deadline); }
bool ControlServer::send(int rank, MessageType type, std::span<const std::byte> payload) {
  return impl_->send(rank, type, payload);
}
void ControlServer::broadcast(MessageType type, std::span<const std::byte> payload) {
  for (int rank = 0; rank < impl_->num_ranks(); ++rank) impl_->send(rank, type, payload);
}
bool ControlServer::connected(int rank) const { return impl_->joined_peer(rank) != nullptr; }
int ControlServer::num_connected() const {
  int count = 0;
  for (int rank = 0; rank < impl_->num_ranks(); ++rank) count += connected(rank) ? 1 : 0;
  return count;
}
void ControlServer::close() { impl_->close(); }

}  // namespace chorale::comm
