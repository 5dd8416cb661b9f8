// The control link: frame parser and both handshakes on any bytes, cut anywhere: an Error or a refusal, never more.
// needs: comm
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "comm/base/error.h"
#include "comm/control_handshake.h"

namespace {

using namespace chorale::comm;

/// Feeds `bytes` in pieces of `step` and hands every frame to `handle`.
template <typename Handle>
void feed_frames(std::span<const std::byte> bytes, size_t step, size_t max_payload, Handle handle) {
  FrameParser parser(max_payload);
  for (size_t begin = 0; begin < bytes.size(); begin += step) {
    parser.feed(bytes.subspan(begin, std::min(step, bytes.size() - begin)));
    while (auto frame = parser.next()) {
      CHECK_LE(frame->payload.size(), max_payload);
      handle(*frame);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto bytes = std::as_bytes(std::span(data + 2, size - 2));
  const size_t step = data[1] + size_t{1};
  const Nonce nonce{};
  try {
    switch (data[0] % 3) {
      case 0: {
        ServerHandshake::Expectation expected;
        expected.secret = "the fuzzer does not know it";
        expected.epoch = 1;
        expected.num_ranks = 4;
        ServerHandshake server(expected, nonce);
        feed_frames(bytes, step, kMaxHandshakePayload, [&](const Frame& frame) { server.handle(frame); });
        CHECK(server.state() != HandshakeState::kDone);
        break;
      }
      case 1: {
        ClientHandshake client("the fuzzer does not know it", kAnyEpoch, 0, nonce);
        client.open();
        feed_frames(bytes, step, kMaxHandshakePayload, [&](const Frame& frame) { client.handle(frame); });
        CHECK(client.state() != HandshakeState::kDone);
        break;
      }
      default: feed_frames(bytes, step, kMaxFramePayload, [](const Frame&) {}); break;
    }
  } catch (const chorale::Error&) {
  }
  return 0;
}
