#include "comm/control_handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <cctype>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "comm/base/env.h"
#include "comm/base/log.h"

namespace chorale::comm {
namespace {

constexpr size_t kMinSecretCharacters = 16;

struct Claim {
  uint64_t epoch;
  int32_t rank;
  Nonce worker_nonce;
  Nonce coordinator_nonce;
};

Proof prove(const std::string& secret, std::string_view role, const Claim& claim) {
  ByteWriter text;
  text.put("chorale control link");
  text.put(role);
  text.put(kFrameVersion);
  text.put(claim.epoch);
  text.put(claim.rank);
  text.put(std::span<const std::byte>(claim.worker_nonce));
  text.put(std::span<const std::byte>(claim.coordinator_nonce));
  const Bytes bytes = text.take();
  Proof proof;
  unsigned size = 0;
  if (HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
           reinterpret_cast<unsigned char*>(proof.data()), &size) == nullptr ||
      size != proof.size())
    fail(ErrorCode::kSystem, "OpenSSL cannot compute an HMAC-SHA256");
  return proof;
}

bool equal_in_constant_time(const Proof& a, const Proof& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

template <size_t N>
void put_array(ByteWriter& out, const std::array<std::byte, N>& bytes) {
  for (std::byte byte : bytes) out.put(byte);
}

std::array<std::byte, 32> get_array(ByteReader& in) {
  std::array<std::byte, 32> bytes;
  for (std::byte& byte : bytes) byte = in.get<std::byte>();
  return bytes;
}

void random_bytes(std::span<std::byte> out) {
  if (RAND_bytes(reinterpret_cast<unsigned char*>(out.data()), static_cast<int>(out.size())) != 1)
    fail(ErrorCode::kSystem, "the system gave no random numbers");
}

[[noreturn]] void unexpected(const Frame& frame) {
  fail(ErrorCode::kCorrupt, "control frame '{}' does not belong into a handshake here", to_string(frame.type));
}

}  // namespace

Nonce random_nonce() {
  Nonce nonce;
  random_bytes(nonce);
  return nonce;
}

Bytes ServerHandshake::handle(const Frame& frame) {
  if (state_ != HandshakeState::kOpen) unexpected(frame);
  if (frame.type == MessageType::kAuthHello && !greeted_) return handle_hello(frame);
  if (frame.type == MessageType::kAuthProof && greeted_) return handle_proof(frame);
  unexpected(frame);
}

Bytes ServerHandshake::handle_hello(const Frame& frame) {
  ByteReader in(frame.payload);
  rank_ = in.get<int32_t>();
  peer_nonce_ = get_array(in);
  in.expect_end();
  greeted_ = true;
  ByteWriter out;
  put_array(out, nonce_);
  return encode_frame(MessageType::kAuthChallenge, expected_.epoch, out.take());
}

Bytes ServerHandshake::handle_proof(const Frame& frame) {
  ByteReader in(frame.payload);
  const Proof proof = get_array(in);
  in.expect_end();
  peer_epoch_ = frame.epoch;
  // The proof comes first: a stranger is not told which ranks are there.
  const Claim claim{peer_epoch_, rank_, peer_nonce_, nonce_};
  if (!equal_in_constant_time(proof, prove(expected_.secret, "worker", claim)))
    return refuse("authentication failed: the secrets differ");
  if (peer_epoch_ != expected_.epoch)
    return refuse(fmt::format("epoch {} is not the current one, {}", peer_epoch_, expected_.epoch));
  if (rank_ < 0 || rank_ >= expected_.num_ranks)
    return refuse(
        fmt::format("there is no rank {} in the coordinator's world of {}: start the workers with mpirun -n {}", rank_,
                    expected_.num_ranks, expected_.num_ranks));
  if (expected_.objection) {
    std::string objection = expected_.objection(rank_);
    if (!objection.empty()) return refuse(std::move(objection));
  }
  state_ = HandshakeState::kDone;
  ByteWriter out;
  put_array(out, prove(expected_.secret, "coordinator", claim));
  return encode_frame(MessageType::kAuthWelcome, expected_.epoch, out.take());
}

Bytes ServerHandshake::refuse(std::string reason) {
  state_ = HandshakeState::kRefused;
  reason_ = std::move(reason);
  ByteWriter out;
  out.put(reason_);
  return encode_frame(MessageType::kRefused, expected_.epoch, out.take());
}

ClientHandshake::ClientHandshake(std::string secret, uint64_t epoch, int rank, const Nonce& nonce)
    : secret_(std::move(secret)), epoch_(epoch), rank_(rank), nonce_(nonce) {}

Bytes ClientHandshake::open() {
  ByteWriter out;
  out.put(static_cast<int32_t>(rank_));
  put_array(out, nonce_);
  return encode_frame(MessageType::kAuthHello, epoch_, out.take());
}

Bytes ClientHandshake::handle(const Frame& frame) {
  if (state_ != HandshakeState::kOpen) unexpected(frame);
  ByteReader in(frame.payload);
  if (frame.type == MessageType::kRefused) {
    state_ = HandshakeState::kRefused;
    reason_ = in.get_string();
    return {};
  }
  if (frame.type == MessageType::kAuthChallenge && !peer_nonce_) {
    peer_nonce_ = get_array(in);
    in.expect_end();
    if (epoch_ == kAnyEpoch) epoch_ = frame.epoch;
    ByteWriter out;
    put_array(out, prove(secret_, "worker", {epoch_, rank_, nonce_, *peer_nonce_}));
    return encode_frame(MessageType::kAuthProof, epoch_, out.take());
  }
  if (frame.type == MessageType::kAuthWelcome && peer_nonce_) {
    const Proof proof = get_array(in);
    in.expect_end();
    if (equal_in_constant_time(proof, prove(secret_, "coordinator", {epoch_, rank_, nonce_, *peer_nonce_}))) {
      state_ = HandshakeState::kDone;
    } else {
      state_ = HandshakeState::kRefused;
      reason_ = "the coordinator does not know the secret";
    }
    return {};
  }
  unexpected(frame);
}

std::string random_secret() {
  std::string text;
  for (std::byte byte : random_nonce()) text += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return text;
}

std::string secret_from(const std::string& file) {
  std::string secret;
  std::string source = file;
  if (file.empty()) {
    const auto value = env(EnvVar::kSecret);
    source = "CHORALE_SECRET";
    if (!value)
      fail(ErrorCode::kNotFound,
           "no shared secret: give --secret-file FILE or set CHORALE_SECRET (at least {} characters)",
           kMinSecretCharacters);
    secret = *value;
  } else {
    std::ifstream in(file);
    if (!in) fail(ErrorCode::kNotFound, "cannot read the secret file {}: {}", file, std::strerror(errno));
    std::getline(in, secret);
    struct stat status {};
    if (stat(file.c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO) & ~(S_IXGRP | S_IXOTH)) != 0)
      log_warn("the secret file {} can be read or written by others; run chmod 600 {}", file, file);
  }
  while (!secret.empty() && std::isspace(static_cast<unsigned char>(secret.back()))) secret.pop_back();
  if (secret.size() < kMinSecretCharacters)
    fail(ErrorCode::kInvalidArgument, "the secret in {} has {} characters, at least {} are needed", source,
         secret.size(), kMinSecretCharacters);
  return secret;
}

}  // namespace chorale::comm
