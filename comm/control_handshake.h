// Who is at the other end of a control link: a challenge-response both ways with HMAC-SHA256 over a shared secret that
// never crosses the wire. State machines fed with frames, free of sockets and clocks, so that tests and fuzzers can
// drive them. They protect the opening of a link, not its later bytes: run the link inside a trusted network.
//
//   worker  -> auth_hello      rank, worker nonce
//   coord.  -> auth_challenge  coordinator nonce
//   worker  -> auth_proof      HMAC(secret, "worker", epoch, rank, both nonces)
//   coord.  -> auth_welcome    HMAC(secret, "coordinator", the same)          or refused, with a reason
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "comm/control_frame.h"

namespace chorale::comm {

using Nonce = std::array<std::byte, 32>;
using Proof = std::array<std::byte, 32>;
/// From the system's generator. Throws Error{kSystem}.
Nonce random_nonce();

enum class HandshakeState { kOpen, kDone, kRefused };

/// The coordinator's side of one incoming link.
class ServerHandshake {
 public:
  struct Expectation {
    std::string secret;
    uint64_t epoch = 0;
    int num_ranks = 0;
    /// Asked last, once the worker has proved itself: a reason to refuse the rank (say, it is connected already), or
    /// "".
    std::function<std::string(int rank)> objection;
  };
  ServerHandshake(const Expectation& expectation, const Nonce& nonce) : expected_(expectation), nonce_(nonce) {}

  /// Returns the bytes to send back. Throws Error{kCorrupt} on a frame that does not belong here.
  Bytes handle(const Frame& frame);
  HandshakeState state() const { return state_; }
  int rank() const { return rank_; }                     // REQUIRES: state() == kDone
  const std::string& reason() const { return reason_; }  // when refused: for the log

 private:
  Bytes handle_hello(const Frame& frame);
  Bytes handle_proof(const Frame& frame);
  Bytes refuse(std::string reason);

  const Expectation& expected_;
  Nonce nonce_;
  Nonce peer_nonce_{};
  uint64_t peer_epoch_ = 0;
  int rank_ = -1;
  bool greeted_ = false;
  HandshakeState state_ = HandshakeState::kOpen;
  std::string reason_;
};

/// A worker that was started by hand does not know the epoch: it takes the coordinator's.
constexpr uint64_t kAnyEpoch = 0;

/// The worker's side.
class ClientHandshake {
 public:
  ClientHandshake(std::string secret, uint64_t epoch, int rank, const Nonce& nonce);
  Bytes open();  // the first bytes to send
  Bytes handle(const Frame& frame);
  HandshakeState state() const { return state_; }
  uint64_t epoch() const { return epoch_; }
  const std::string& reason() const { return reason_; }

 private:
  std::string secret_;
  uint64_t epoch_;
  int rank_;
  Nonce nonce_;
  std::optional<Nonce> peer_nonce_;
  HandshakeState state_ = HandshakeState::kOpen;
  std::string reason_;
};

/// A new secret of 64 hexadecimal digits. Throws Error{kSystem}.
std::string random_secret();

/// The first line of `file`, or of the environment variable CHORALE_SECRET when `file` is empty. Warns when others may
/// read the file. Throws Error{kNotFound} where there is none and Error{kInvalidArgument} for one of fewer than 16
/// characters.
std::string secret_from(const std::string& file);

}  // namespace chorale::comm
