// The control link: one authenticated TCP connection between each worker and the coordinator. It carries plans, results
// and heartbeats; tensors go through a Communicator. Either end is served by a thread of its own that never computes,
// so a busy engine or worker stays alive to its peer, and a dead or frozen one is noticed within three heartbeats.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "comm/base/bytes.h"
#include "comm/base/deadline.h"
#include "comm/base/leaving.h"
#include "comm/control_handshake.h"

namespace chorale::comm {

/// Equal on both ends of a link.
struct LinkTiming {
  std::chrono::milliseconds heartbeat{1000};
  int missed_heartbeats = 3;                          // silent for so many: lost
  std::chrono::milliseconds handshake_timeout{5000};  // a peer that has not proved itself by then is closed
};

struct Message {
  MessageType type = MessageType::kHeartbeat;
  Bytes payload;
};

/// What happens to a rank's link, in order: joined (payload: its hello), any number of messages, lost (reason).
struct LinkEvent {
  enum class Kind { kJoined, kMessage, kLost };
  Kind kind = Kind::kMessage;
  int rank = -1;
  MessageType type = MessageType::kHello;
  Bytes payload;
  std::string reason;
};

struct ControlServerOptions {
  std::string host = "127.0.0.1";  // address to listen on; "0.0.0.0" or "::" for all
  int port = 0;                    // 0: any free one
  std::string secret;
  uint64_t epoch = 1;
  int num_ranks = 0;
  LinkTiming timing;
  int max_strangers = 64;                       // connections that have not proved themselves; more are closed at once
  size_t max_outbox_bytes = size_t{256} << 20;  // a worker that does not read is lost, not waited for
  size_t max_queue_bytes = size_t{256} << 20;   // events that nobody fetched
};

/// The coordinator's end. Thread: send, broadcast, wait and connected from any thread; start and close from the
/// owner's.
class ControlServer {
 public:
  /// Listens; nobody is accepted before start(). Throws Error{kSystem} (address in use, ...).
  explicit ControlServer(const ControlServerOptions& options);
  ~ControlServer();
  uint16_t port() const;

  /// False: it has no room. The link of the rank that sent a message is dropped then (other events always fit).
  using Handler = std::function<bool(LinkEvent)>;
  /// Why a worker that proved itself may still not join, judged by its hello; "": it may. A refused worker is told the
  /// reason, the others go on, and nobody hears of it but the log.
  using Objection = std::function<std::string(int rank, const Bytes& hello)>;
  /// With a handler, events are handed to it on the link's thread (it must not block or call close); without, they
  /// queue for wait(). `objection` is called there too.
  void start(Handler handler = nullptr, Objection objection = nullptr);

  /// The next event, or nothing when the deadline passed or the server was closed.
  std::optional<LinkEvent> wait(Deadline deadline);

  /// Never blocks: what the socket does not take at once is queued. False when the rank is not connected (kLost says
  /// why).
  bool send(int rank, MessageType type, std::span<const std::byte> payload);
  void broadcast(MessageType type, std::span<const std::byte> payload);
  bool connected(int rank) const;
  int num_connected() const;

  /// Sends what is queued (one second at most), closes every link and ends the thread. No events after it.
  void close();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

enum class LinkLoss { kBroken, kOverdue };

struct ControlClientOptions {
  std::string host;
  int port = 0;
  std::string secret;
  uint64_t epoch = kAnyEpoch;
  int rank = 0;
  Bytes hello;  // the worker's facts, in the joined event
  LinkTiming timing;
  size_t max_outbox_bytes = size_t{256} << 20;
  size_t max_queue_bytes = size_t{256} << 20;
  /// Called on the link's thread: kBroken when the link is lost without a stop or a refusal before, kOverdue when after
  /// one this client lives too long. The worker process leaves.
  std::function<void(LinkLoss how, const std::string& reason)> on_lost;
  /// How long is too long. Counted from when the owner received a stop that ends the world in order: before, it is in a
  /// step, which has a deadline of its own. And from when a refusal comes, or a stop with a reason (the world is lost):
  /// the owner may hang in a step whose peers are gone.
  std::chrono::milliseconds clean_end = kCleanEnd, lost_end = kLostEnd;
};

/// The worker's end. Thread: send and receive from any thread.
class ControlClient {
 public:
  /// Retries until the deadline while nobody answers: the coordinator may start later. The first failure is logged as a
  /// warning, so that a wrong address does not look like patience. Throws Error{kDeadlineExceeded} with the reason,
  /// Error{kInvalidArgument} when refused (with the coordinator's reason), Error{kCorrupt} when the other end is
  /// something else.
  static std::unique_ptr<ControlClient> connect(ControlClientOptions options, Deadline deadline);
  ~ControlClient();

  uint64_t epoch() const;  // the coordinator's
  /// Never blocks. Throws Error{kPeerLost} with the reason when the link is lost.
  void send(MessageType type, std::span<const std::byte> payload);
  /// The next message, or nothing at the deadline; uses no CPU while it waits. The last may be kRefused (payload: the
  /// coordinator's reason as text) or kStop (payload: why the world is lost; empty: it ends in order). Throws
  /// Error{kPeerLost} when the link is lost and what came before was received.
  std::optional<Message> receive(Deadline deadline);

 private:
  class Impl;
  explicit ControlClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chorale::comm
