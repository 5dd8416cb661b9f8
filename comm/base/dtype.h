// Element types of tensors, and the conversions between float32 and the 16-bit types. No arithmetic lives here.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chorale {

enum class DType : uint8_t { kF32, kF16, kBF16, kF64, kI8, kU8, kI16, kI32, kI64, kBool };

std::string_view to_string(DType dtype);
/// Throws Error{kInvalidArgument} that lists the valid names ("f32", "bf16", ...).
DType dtype_from_string(std::string_view name);
size_t size_of(DType dtype);  // bytes of one element

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

inline float to_float(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }

/// Round to nearest even; NaN stays NaN (quiet).
inline BFloat16 to_bf16(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

float to_float(Float16 x);
/// Round to nearest even; overflow gives infinity, NaN stays NaN (quiet).
Float16 to_f16(float x);

}  // namespace chorale
