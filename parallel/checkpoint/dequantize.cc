#include "parallel/checkpoint/dequantize.h"

#include <bit>
#include <cstring>

#include "comm/base/dtype.h"
#include "comm/base/error.h"

namespace chorale::parallel {
namespace {

// Formats: https://github.com/ggml-org/ggml, ggml-common.h (layout) and ggml-quants.c (meaning). d, m, dmin are
// float16.
//   Q8_0 {d, q[32]: int8}                        x = d*q
//   Q4_0 {d, nibbles[16]}                        x = d*(q-8)          low nibbles are elements 0..15, high ones 16..31
//   Q4_1 {d, m, nibbles[16]}                     x = d*q + m
//   Q5_0 {d, high bits[4], nibbles[16]}          x = d*(q-16)         bit i of the 32 high bits belongs to element i
//   Q5_1 {d, m, high bits[4], nibbles[16]}       x = d*q + m
//   Q4_K {d, dmin, scales[12], nibbles[128]}     x = d*sc*q - dmin*mn  8 sub-blocks of 32 with 6-bit sc and mn
//   Q5_K {d, dmin, scales[12], high[32], nibbles[128]}                same with 5-bit q
//   Q6_K {low[128], high[64], sc[16]: int8, d}   x = d*sc*(q-32)      16 sub-blocks of 16

// Same value as to_float(Float16), without branches so that loops over it become vector code. Uses normal float32
// numbers only, so that flush-to-zero modes do not matter.
inline float half_to_float(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = (magnitude << 13) | 0x7f800000u;  // infinity, NaN
  const float tiny = std::bit_cast<float>((magnitude << 13) + (113u << 23)) - std::bit_cast<float>(113u << 23);
  uint32_t bits = magnitude >= 0x7c00u ? special : normal;
  bits = magnitude < 0x400u ? std::bit_cast<uint32_t>(tiny) : bits;
  return std::bit_cast<float>(bits | sign);
}

template <typename T>
inline T load(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

inline float load_half(const std::byte* p) { return half_to_float(load<uint16_t>(p)); }
inline int u8(std::byte b) { return static_cast<int>(b); }

void f16(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = half_to_float(load<uint16_t>(in + 2 * i));
}

void bf16(const std::byte* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i)
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(load<uint16_t>(in + 2 * i)) << 16);
}

void q8_0(const std::byte* block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

void q4_0(const std::byte* block, float* out) {
  const float d = load_half(block);
  for (int i = 0; i < 16; ++i) {
    const int q = u8(block[2 + i]);
    out[i] = d * static_cast<float>((q & 15) - 8);
    out[i + 16] = d * static_cast<float>((q >> 4) - 8);
  }
}

void q4_1(const std::byte* block, float* out) {
  const float d = load_half(block);
  const float m = load_half(block + 2);
  for (int i = 0; i < 16; ++i) {
    const int q = u8(block[4 + i]);
    out[i] = d * static_cast<float>(q & 15) + m;
    out[i + 16] = d * static_cast<float>(q >> 4) + m;
  }
}

void q5_0(const std::byte* block, float* out) {
  const float d = load_half(block);
  const auto high = load<uint32_t>(block + 2);
  for (int i = 0; i < 16; ++i) {
    const int q = u8(block[6 + i]);
    const int low_q = (q & 15) | static_cast<int>((high >> i & 1u) << 4);
    const int high_q = (q >> 4) | static_cast<int>((high >> (i + 16) & 1u) << 4);
    out[i] = d * static_cast<float>(low_q - 16);
    out[i + 16] = d * static_cast<float>(high_q - 16);
  }
}

void q5_1(const std::byte* block, float* out) {
  const float d = load_half(block);
  const float m = load_half(block + 2);
  const auto high = load<uint32_t>(block + 4);
  for (int i = 0; i < 16; ++i) {
    const int q = u8(block[8 + i]);
    const int low_q = (q & 15) | static_cast<int>((high >> i & 1u) << 4);
    const int high_q = (q >> 4) | static_cast<int>((high >> (i + 16) & 1u) << 4);
    out[i] = d * static_cast<float>(low_q) + m;
    out[i + 16] = d * static_cast<float>(high_q) + m;
  }
}

// The 6-bit scale and minimum of sub-block i (0..7), packed into 12 bytes: the first four have theirs in the low 6 bits
// of bytes i and i+4; the last four have the low 4 bits in byte i+4 and the high 2 bits on top of bytes i-4 and i.
struct SubBlock {
  float scale;
  float minimum;
};
SubBlock sub_block(const std::byte* packed, int i) {
  if (i < 4) return {static_cast<float>(u8(packed[i]) & 63), static_cast<float>(u8(packed[i + 4]) & 63)};
  const int low = u8(packed[i + 4]);
  return {static_cast<float>((low & 15) | (u8(packed[i - 4]) >> 6 << 4)),
          static_cast<float>((low >> 4) | (u8(packed[i]) >> 6 << 4))};
}

void q4_k(const std::byte* block, float* out) {
  const float d = load_half(block);
  const float dmin = load_half(block + 2);
  // Sub-blocks 2j and 2j+1 are the low and the high nibbles of the j-th 32 bytes.
  for (int i = 0; i < 8; ++i) {
    const SubBlock sub = sub_block(block + 4, i);
    const float scale = d * sub.scale;
    const float minimum = dmin * sub.minimum;
    const std::byte* nibbles = block + 16 + 32 * (i / 2);
    const int shift = 4 * (i % 2);
    for (int k = 0; k < 32; ++k) out[32 * i + k] = scale * static_cast<float>(u8(nibbles[k]) >> shift & 15) - minimum;
  }
}

void q5_k(const std::byte* block, float* out) {
  const float d = load_half(block);
  const float dmin = load_half(block + 2);
  const std::byte* high = block + 16;  // bit i of high[k] belongs to element k of sub-block i
  for (int i = 0; i < 8; ++i) {
    const SubBlock sub = sub_block(block + 4, i);
    const float scale = d * sub.scale;
    const float minimum = dmin * sub.minimum;
    const std::byte* nibbles = block + 48 + 32 * (i / 2);
    const int shift = 4 * (i % 2);
    for (int k = 0; k < 32; ++k) {
      const int q = (u8(nibbles[k]) >> shift & 15) | (u8(high[k]) >> i & 1) << 4;
      out[32 * i + k] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void q6_k(const std::byte* block, float* out) {
  const std::byte* scales = block + 192;
  const float d = load_half(block + 208);
  // Two halves of 128 elements; in each, row r (0..3) of 32 elements takes nibble r/2 of low[32*(r%2) + k] and bits 2r,
  // 2r+1 of high[k].
  for (int half = 0; half < 2; ++half) {
    const std::byte* low = block + 64 * half;
    const std::byte* high = block + 128 + 32 * half;
    for (int r = 0; r < 4; ++r) {
      for (int part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(static_cast<int8_t>(scales[8 * half + 2 * r + part]));
        for (int k = 16 * part; k < 16 * part + 16; ++k) {
          const int q = (u8(low[32 * (r % 2) + k]) >> (4 * (r / 2)) & 15) | (u8(high[k]) >> (2 * r) & 3) << 4;
          out[128 * half + 32 * r + k] = scale * static_cast<float>(q - 32);
        }
      }
    }
  }
}

template <void (*kDecode)(const std::byte*, float*)>
void each_block(StorageType type, const std::byte* in, int64_t num_blocks, float* out) {
  const int bytes = block_bytes(type);
  const int elements = block_elements(type);
  for (int64_t i = 0; i < num_blocks; ++i) kDecode(in + i * bytes, out + i * elements);
}

}  // namespace

void dequantize(StorageType type, const std::byte* blocks, int64_t num_blocks, float* out) {
  if (num_blocks <= 0) return;
  switch (type) {
    case StorageType::kF32: std::memcpy(out, blocks, static_cast<size_t>(num_blocks) * sizeof(float)); return;
    case StorageType::kF16: return f16(blocks, num_blocks, out);
    case StorageType::kBF16: return bf16(blocks, num_blocks, out);
    case StorageType::kQ8_0: return each_block<q8_0>(type, blocks, num_blocks, out);
    case StorageType::kQ4_0: return each_block<q4_0>(type, blocks, num_blocks, out);
    case StorageType::kQ4_1: return each_block<q4_1>(type, blocks, num_blocks, out);
    case StorageType::kQ5_0: return each_block<q5_0>(type, blocks, num_blocks, out);
    case StorageType::kQ5_1: return each_block<q5_1>(type, blocks, num_blocks, out);
    case StorageType::kQ4_K: return each_block<q4_k>(type, blocks, num_blocks, out);
    case StorageType::kQ5_K: return each_block<q5_k>(type, blocks, num_blocks, out);
    case StorageType::kQ6_K: return each_block<q6_k>(type, blocks, num_blocks, out);
  }
  CHECK(false);
}

}  // namespace chorale::parallel
