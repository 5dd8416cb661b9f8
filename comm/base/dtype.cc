#include "comm/base/dtype.h"

#include <array>
#include <string>
#include <utility>

#include "comm/base/error.h"

namespace chorale {
namespace {
struct Row {
  DType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr std::array<Row, 10> kRows{{{DType::kF32, "f32", 4},
                                     {DType::kF16, "f16", 2},
                                     {DType::kBF16, "bf16", 2},
                                     {DType::kF64, "f64", 8},
                                     {DType::kI8, "i8", 1},
                                     {DType::kU8, "u8", 1},
                                     {DType::kI16, "i16", 2},
                                     {DType::kI32, "i32", 4},
                                     {DType::kI64, "i64", 8},
                                     {DType::kBool, "bool", 1}}};
}  // namespace

std::string_view to_string(DType dtype) { return kRows[static_cast<size_t>(dtype)].name; }
size_t size_of(DType dtype) { return kRows[static_cast<size_t>(dtype)].bytes; }

DType dtype_from_string(std::string_view name) {
  std::string known;
  for (const Row& row : kRows) {
    if (row.name == name) return row.dtype;
    known += known.empty() ? "" : ", ";
    known += row.name;
  }
  fail(ErrorCode::kInvalidArgument, "unknown dtype '{}'; one of {}", name, known);
}

float to_float(Float16 x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fu;
  const uint32_t mantissa = x.bits & 0x3ffu;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24 is exact in float32
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

Float16 to_f16(float x) {
  const auto u = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  const auto with_sign = [sign](uint32_t bits) { return Float16{static_cast<uint16_t>(sign | bits)}; };
  if (a > 0x7f800000u) return with_sign(0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x47800000u) return with_sign(0x7c00u);                                              // 2^16 and above
  if (a >= 0x38800000u) return with_sign((a - 0x38000000u + 0xfffu + ((a >> 13) & 1u)) >> 13);  // normal
  if (a < 0x33000000u) return with_sign(0);                                                     // below 2^-25
  const uint32_t shift = 126 - (a >> 23), mantissa = (a & 0x7fffffu) | 0x800000u;  // subnormal: units of 2^-24
  const uint32_t rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1), down = mantissa >> shift;
  return with_sign(down + (rest > half || (rest == half && (down & 1u) != 0) ? 1u : 0u));
}

}  // namespace chorale
