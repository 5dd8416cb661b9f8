// Sockets of the control link: opening them with the timeouts that notice a dead host, and one connection's buffered,
// non-blocking reading and writing. Used by control_server.cc and control_client.cc only.
#pragma once

#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "comm/base/deadline.h"
#include "comm/base/fd.h"
#include "comm/control_frame.h"

namespace chorale::comm {

/// A non-blocking listening socket and its port. Throws Error{kSystem | kInvalidArgument}.
struct Listener {
  Fd fd;
  uint16_t port = 0;
};
Listener listen_on(const std::string& host, int port);

/// One attempt; an empty Fd and a reason when nobody answers. Throws Error{kInvalidArgument} for a port that cannot be.
Fd connect_to(const std::string& host, int port, Deadline deadline, std::string& reason);

/// No delay, keepalive 1/1/3 s and a 2 s limit on unacknowledged data: a host that loses power is noticed within 3 s.
void tune_socket(int fd);

/// Waits until `fd` has one of `events` (poll's). False at the deadline.
bool wait_for(int fd, short events, Deadline deadline);

/// A wake-up call for a thread that sleeps in epoll_wait.
class WakeUp {
 public:
  WakeUp();
  int fd() const { return fd_.get(); }
  void ring();
  void clear();

 private:
  Fd fd_;
};

/// Thread: read() by the link's thread only; send() and flush() by any; registered edge-triggered for reading and
/// writing, so what send() could not write goes out from flush() when the kernel reports room.
class ControlConnection {
 public:
  ControlConnection(Fd fd, size_t max_payload, size_t max_outbox_bytes);
  int fd() const { return fd_.get(); }
  FrameParser& parser() { return parser_; }

  /// False when the connection is broken (reason() says why) or the outbox is full.
  bool send(MessageType type, uint64_t epoch, std::span<const std::byte> payload);
  bool send_raw(std::span<const std::byte> first, std::span<const std::byte> second);
  bool flush();
  bool outbox_empty() const;

  enum class ReadResult { kMore, kDrained, kClosed };
  /// Feeds the parser with what has arrived, at most about 64 KiB.
  ReadResult read();

  /// Why it broke; "" while it did not.
  std::string reason() const;
  void break_off(const std::string& reason);  // wakes the link's thread with an event

 private:
  bool fail_locked(const std::string& reason);

  Fd fd_;
  FrameParser parser_;
  Bytes read_buffer_;
  const size_t max_outbox_bytes_;
  mutable std::mutex mutex_;  // guards what follows, and the order of writes
  Bytes outbox_;
  size_t written_ = 0;  // of the outbox
  std::string reason_;
};

}  // namespace chorale::comm
