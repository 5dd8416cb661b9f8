// Philox4x32-10 (Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3"): a counter-based generator. The
// sampler draws one number a token from (seed, choice, position), so a draw depends on nothing else (N8).
#pragma once

#include <array>
#include <cstdint>

namespace chorale::worker {

inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * counter[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

/// Uniform in [0, 1), 53 bits: the draw for the token at absolute `position` of choice `choice`.
inline double uniform_draw(uint64_t seed, uint32_t choice, uint32_t position) {
  const auto words =
      philox4x32({position, choice, 0, 0}, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  constexpr double kTwoTo26 = 67108864.0, kTwoTo53 = 9007199254740992.0;
  return ((words[0] >> 5) * kTwoTo26 + (words[1] >> 6)) / kTwoTo53;
}

}  // namespace chorale::worker
