#include "comm/control_frame.h"

#include <bit>

namespace chorale::comm {

static_assert(std::endian::native == std::endian::little, "frames are written in the machine's own byte order");

std::string_view to_string(MessageType type) {
  switch (type) {
    case MessageType::kAuthHello: return "auth_hello";
    case MessageType::kAuthChallenge: return "auth_challenge";
    case MessageType::kAuthProof: return "auth_proof";
    case MessageType::kAuthWelcome: return "auth_welcome";
    case MessageType::kRefused: return "refused";
    case MessageType::kHello: return "hello";
    case MessageType::kClusterPlan: return "cluster_plan";
    case MessageType::kReady: return "ready";
    case MessageType::kStepPlan: return "step_plan";
    case MessageType::kStepResult: return "step_result";
    case MessageType::kHeartbeat: return "heartbeat";
    case MessageType::kStop: return "stop";
    case MessageType::kDrain: return "drain";
    case MessageType::kFault: return "fault";
    case MessageType::kStageReport: return "stage_report";
  }
  return "unknown";
}

Bytes encode_frame_header(MessageType type, uint64_t epoch, size_t payload_bytes) {
  if (payload_bytes > kMaxFramePayload)
    fail(ErrorCode::kResourceExhausted,
         "a {} message of {} bytes is more than the control link carries in one, {}: ask for less in one step (a "
         "smaller "
         "--max-num-batched-tokens, --max-num-seqs, or fewer log-probabilities)",
         to_string(type), payload_bytes, kMaxFramePayload);
  ByteWriter out;
  out.put(kFrameMagic);
  out.put(kFrameVersion);
  out.put(type);
  out.put(epoch);
  out.put(static_cast<uint32_t>(payload_bytes));
  return out.take();
}

Bytes encode_frame(MessageType type, uint64_t epoch, std::span<const std::byte> payload) {
  Bytes frame = encode_frame_header(type, epoch, payload.size());
  frame.insert(frame.end(), payload.begin(), payload.end());
  return frame;
}

void FrameParser::feed(std::span<const std::byte> bytes) {
  if (consumed_ > 0 && consumed_ == buffer_.size()) {
    buffer_.clear();
    consumed_ = 0;
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

std::optional<Frame> FrameParser::next() {
  const auto rest = std::span<const std::byte>(buffer_).subspan(consumed_);
  if (rest.size() < kFrameHeaderBytes) return std::nullopt;
  ByteReader header(rest.first(kFrameHeaderBytes));
  const auto magic = header.get<uint32_t>();
  const auto version = header.get<uint16_t>();
  const auto type = static_cast<MessageType>(header.get<uint16_t>());
  const auto epoch = header.get<uint64_t>();
  const auto length = header.get<uint32_t>();
  if (magic != kFrameMagic) fail(ErrorCode::kCorrupt, "not a control link frame (magic {:08x})", magic);
  if (version != kFrameVersion)
    fail(ErrorCode::kCorrupt, "control link version {}, this side speaks {}: use the same build everywhere", version,
         kFrameVersion);
  if (to_string(type) == "unknown")
    fail(ErrorCode::kCorrupt, "control frame of unknown type {}", static_cast<int>(type));
  if (length > max_payload_)
    fail(ErrorCode::kCorrupt, "control frame '{}' claims {} bytes, at most {} are allowed here", to_string(type),
         length, max_payload_);
  if (rest.size() - kFrameHeaderBytes < length) return std::nullopt;
  const auto payload = rest.subspan(kFrameHeaderBytes, length);
  Frame frame{type, epoch, Bytes(payload.begin(), payload.end())};
  consumed_ += kFrameHeaderBytes + length;
  if (consumed_ >= 64u << 10) {  // keep the buffer small without moving bytes for every small frame
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(consumed_));
    consumed_ = 0;
  }
  return frame;
}

}  // namespace chorale::comm
