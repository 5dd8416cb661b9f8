// Frames of the control link: what one message between a worker and the coordinator looks like on the wire. The parser
// takes bytes from anywhere (a socket, a fuzzer), holds at most one bounded frame, and trusts nothing. It opens no
// socket and checks no identity.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "comm/base/bytes.h"

namespace chorale::comm {

/// On the wire, little-endian: magic u32, version u16, type u16, epoch u64, length u32, then `length` bytes of payload.
constexpr uint32_t kFrameMagic = 0x4b4c4843;  // "CHLK"
constexpr uint16_t kFrameVersion = 1;
constexpr size_t kFrameHeaderBytes = 20;
constexpr size_t kMaxFramePayload = 64u << 20;  // an authenticated peer
constexpr size_t kMaxHandshakePayload = 1024;   // before that

/// New types go at the end: the numbers are the protocol.
enum class MessageType : uint16_t {
  kAuthHello = 1,      // worker: rank, nonce
  kAuthChallenge = 2,  // coordinator: nonce
  kAuthProof = 3,      // worker: proof that it knows the secret
  kAuthWelcome = 4,    // coordinator: its own proof
  kRefused = 5,        // either: why the link ends; also the coordinator's answer to a hello
  kHello = 16,         // worker: facts about its host, first message of an authenticated link
  kClusterPlan = 17,
  kReady = 18,
  kStepPlan = 19,
  kStepResult = 20,
  kHeartbeat = 21,
  kStop = 22,
  kDrain = 23,
  kFault = 24,  // worker: why it leaves (WorkerFault)
  kStageReport = 25,
};
/// "step_plan"; "unknown" for a number that has no name.
std::string_view to_string(MessageType type);

struct Frame {
  MessageType type = MessageType::kHeartbeat;
  uint64_t epoch = 0;
  Bytes payload;
};

/// Throw Error{kResourceExhausted} for a payload above kMaxFramePayload: the peer would refuse the frame.
Bytes encode_frame_header(MessageType type, uint64_t epoch, size_t payload_bytes);
Bytes encode_frame(MessageType type, uint64_t epoch, std::span<const std::byte> payload);

class FrameParser {
 public:
  explicit FrameParser(size_t max_payload) : max_payload_(max_payload) {}
  void set_max_payload(size_t bytes) { max_payload_ = bytes; }

  /// Appends bytes as they came.
  void feed(std::span<const std::byte> bytes);
  /// The next whole frame, if it has arrived. Throws Error{kCorrupt} on a wrong magic, version, type or length; the
  /// link is then unusable.
  std::optional<Frame> next();

 private:
  size_t max_payload_;
  Bytes buffer_;
  size_t consumed_ = 0;
};

}  // namespace chorale::comm
