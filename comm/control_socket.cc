#include "comm/control_socket.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "comm/base/error.h"

namespace chorale::comm {
namespace {

std::string error_text(int code) { return std::strerror(code); }

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

AddressList resolve(const std::string& host, int port, int flags, std::string& reason) {
  if (port < 0 || port > 65535) fail(ErrorCode::kInvalidArgument, "port {} is not in 0..65535", port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int rc = getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (rc != 0) reason = fmt::format("no address for host '{}': {}", host, gai_strerror(rc));
  return AddressList(rc == 0 ? found : nullptr, freeaddrinfo);
}

void set_option(int fd, int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof(value)); }

}  // namespace

void tune_socket(int fd) {
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 2000);
}

Listener listen_on(const std::string& host, int port) {
  std::string reason;
  const AddressList addresses = resolve(host, port, AI_PASSIVE, reason);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Fd fd(socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
      reason = error_text(errno);
      continue;
    }
    set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (bind(fd.get(), address->ai_addr, address->ai_addrlen) != 0 || listen(fd.get(), 128) != 0) {
      reason = error_text(errno);
      continue;
    }
    sockaddr_storage bound{};
    socklen_t size = sizeof(bound);
    if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
      fail(ErrorCode::kSystem, "cannot read the control port: {}", error_text(errno));
    const in_port_t bound_port = bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                             : reinterpret_cast<sockaddr_in*>(&bound)->sin_port;
    return {std::move(fd), ntohs(bound_port)};
  }
  fail(ErrorCode::kSystem, "cannot listen for workers on {}:{}: {}", host, port, reason);
}

bool wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline.remaining()).count();
    pollfd item{fd, events, 0};
    const int rc = poll(&item, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
    if (rc > 0) return true;
    if (rc < 0 && errno != EINTR) fail(ErrorCode::kSystem, "poll: {}", error_text(errno));
    if (deadline.expired()) return false;
  }
}

Fd connect_to(const std::string& host, int port, Deadline deadline, std::string& reason) {
  const AddressList addresses = resolve(host, port, 0, reason);
  for (const addrinfo* address = addresses.get(); address != nullptr; address = address->ai_next) {
    Fd fd(socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
      reason = error_text(errno);
      continue;
    }
    tune_socket(fd.get());
    if (connect(fd.get(), address->ai_addr, address->ai_addrlen) == 0) return fd;
    if (errno == EINPROGRESS && wait_for(fd.get(), POLLOUT, deadline)) {
      int code = 0;
      socklen_t size = sizeof(code);
      getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &code, &size);
      if (code == 0) return fd;
      reason = error_text(code);
    } else {
      reason = errno == EINPROGRESS ? "no answer" : error_text(errno);
    }
  }
  return Fd();
}

WakeUp::WakeUp() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (!fd_) fail(ErrorCode::kSystem, "eventfd: {}", error_text(errno));
}

void WakeUp::ring() {
  const uint64_t one = 1;
  // A full counter rings as well, so the result does not matter.
  [[maybe_unused]] const ssize_t rc = write(fd_.get(), &one, sizeof(one));
}

void WakeUp::clear() {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t rc = ::read(fd_.get(), &count, sizeof(count));
}

ControlConnection::ControlConnection(Fd fd, size_t max_payload, size_t max_outbox_bytes)
    : fd_(std::move(fd)), parser_(max_payload), max_outbox_bytes_(max_outbox_bytes) {}

bool ControlConnection::fail_locked(const std::string& reason) {
  if (reason_.empty()) reason_ = reason;
  shutdown(fd_.get(), SHUT_RDWR);  // the link's thread gets an event and cleans up
  return false;
}

void ControlConnection::break_off(const std::string& reason) {
  const std::lock_guard lock(mutex_);
  fail_locked(reason);
}

std::string ControlConnection::reason() const {
  const std::lock_guard lock(mutex_);
  return reason_;
}

bool ControlConnection::outbox_empty() const {
  const std::lock_guard lock(mutex_);
  return outbox_.empty();
}

bool ControlConnection::send(MessageType type, uint64_t epoch, std::span<const std::byte> payload) {
  return send_raw(encode_frame_header(type, epoch, payload.size()), payload);
}

bool ControlConnection::send_raw(std::span<const std::byte> first, std::span<const std::byte> second) {
  const std::lock_guard lock(mutex_);
  if (!reason_.empty()) return false;
  size_t sent = 0;
  if (outbox_.empty()) {
    iovec parts[2] = {{const_cast<std::byte*>(first.data()), first.size()},
                      {const_cast<std::byte*>(second.data()), second.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    const ssize_t rc = sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (rc < 0 && errno != EAGAIN && errno != EINTR) return fail_locked("cannot send: " + error_text(errno));
    sent = rc < 0 ? 0 : static_cast<size_t>(rc);
    if (sent == first.size() + second.size()) return true;
  }
  if (outbox_.size() - written_ + first.size() + second.size() - sent > max_outbox_bytes_)
    return fail_locked(fmt::format("the peer does not read: {} bytes wait to be sent", outbox_.size() - written_));
  const auto keep = [&](std::span<const std::byte> part) {
    const size_t skip = std::min(sent, part.size());
    sent -= skip;
    outbox_.insert(outbox_.end(), part.begin() + static_cast<std::ptrdiff_t>(skip), part.end());
  };
  keep(first);
  keep(second);
  return true;
}

bool ControlConnection::flush() {
  const std::lock_guard lock(mutex_);
  if (!reason_.empty()) return false;
  while (written_ < outbox_.size()) {
    const ssize_t rc =
        ::send(fd_.get(), outbox_.data() + written_, outbox_.size() - written_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (rc < 0 && errno == EINTR) continue;
    if (rc < 0 && errno == EAGAIN) break;
    if (rc < 0) return fail_locked("cannot send: " + error_text(errno));
    written_ += static_cast<size_t>(rc);
  }
  if (written_ < outbox_.size()) {
    if (written_ >= outbox_.size() / 2) {  // drop what went out, so that the buffer does not grow with the link's age
      outbox_.erase(outbox_.begin(), outbox_.begin() + static_cast<std::ptrdiff_t>(written_));
      written_ = 0;
    }
    return true;
  }
  outbox_.clear();
  written_ = 0;
  return true;
}

ControlConnection::ReadResult ControlConnection::read() {
  read_buffer_.resize(64u << 10);
  const ssize_t rc = recv(fd_.get(), read_buffer_.data(), read_buffer_.size(), MSG_DONTWAIT);
  if (rc > 0) {
    parser_.feed(std::span(read_buffer_).first(static_cast<size_t>(rc)));
    return ReadResult::kMore;  // also after a short read: an end of stream right behind it rings no second time
  }
  if (rc < 0 && (errno == EAGAIN || errno == EINTR)) return errno == EINTR ? ReadResult::kMore : ReadResult::kDrained;
  const std::string text = rc == 0 ? "the peer closed the link" : "the link broke: " + error_text(errno);
  const std::lock_guard lock(mutex_);
  if (reason_.empty()) reason_ = text;
  return ReadResult::kClosed;
}

}  // namespace chorale::comm
