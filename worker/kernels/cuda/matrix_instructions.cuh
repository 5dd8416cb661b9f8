// The tensor cores' matrix multiply-accumulate (PTX ISA, mma.sync.aligned.m16n8k16 and m16n8k8) and the fragments that
// its operands lie in. Under the emulator the sum is a chain of fused multiply-adds, ascending in k: what a GPU's
// tensor core does inside one instruction is part of its numerics class (N10).
//
// Lane l of the warp, g = l / 4, t = l % 4, holds of D[16, 8] += A[16, 16] B[16, 8]:
//   A, 4 registers of 2 elements:  (g, 2t..2t+1)  (g+8, 2t..)  (g, 2t+8..)  (g+8, 2t+8..)     rows of A, k
//   B, 2 registers of 2 elements:  (2t..2t+1, g)  (2t+8..2t+9, g)                             k, columns of B
//   C and D, 4 floats:             (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
// In a register the element of lower k is in the lower half.
#pragma once

#include <cstdint>

#include "worker/kernels/cuda/simt.cuh"

namespace chorale::worker::inline SIMT {

struct FragmentA {
  uint32_t reg[4];
};
struct FragmentB {
  uint32_t reg[2];
};
struct FragmentC {
  float value[4];
};

#if defined(__CUDACC__)

/// c += a b. T: BFloat16 or Float16. Volatile: the whole warp must get there, so a compiler may not move it into a
/// branch or copy it; that costs nothing (nvcc 13.0 gives attention and linear the same registers on sm_80 and sm_90,
/// and on sm_100 up to 12 fewer).
template <typename T>
__device__ __forceinline__ void multiply_accumulate(FragmentC& c, const FragmentA& a, const FragmentB& b);
template <>
__device__ __forceinline__ void multiply_accumulate<BFloat16>(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
      : "r"(a.reg[0]), "r"(a.reg[1]), "r"(a.reg[2]), "r"(a.reg[3]), "r"(b.reg[0]), "r"(b.reg[1]));
}
template <>
__device__ __forceinline__ void multiply_accumulate<Float16>(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c.value[0]), "+f"(c.value[1]), "+f"(c.value[2]), "+f"(c.value[3])
      : "r"(a.reg[0]), "r"(a.reg[1]), "r"(a.reg[2]), "r"(a.reg[3]), "r"(b.reg[0]), "r"(b.reg[1]));
}

/// Four 8 x 8 matrices of 16-bit elements from shared memory (ldmatrix.x4): lane l names row l % 8 of matrix l / 8
/// (16 bytes, aligned); register m holds of matrix m: row g, elements 2t and 2t + 1.
__device__ __forceinline__ void load_matrices(uint32_t (&reg)[4], const void* row_of_lane) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(reg[0]), "=r"(reg[1]), "=r"(reg[2]), "=r"(reg[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row_of_lane)))
               : "memory");
}

template <typename T>
__device__ __forceinline__ uint32_t pack_pair(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack_pair<BFloat16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
template <>
__device__ __forceinline__ uint32_t pack_pair<Float16>(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

#else

namespace mma_twin {
struct Lane {
  FragmentC* c;
  const FragmentA* a;
  const FragmentB* b;
};
/// d[16, 8] += a[16, 16] b[16, 8], each element one ascending chain of fused multiply-adds.
void multiply(float (&d)[16][8], const float (&a)[16][16], const float (&b)[16][8]);

template <typename T>
float element(uint32_t pair, int half) {
  const auto bits = static_cast<uint16_t>(half == 0 ? pair : pair >> 16);
  return to_f32(T{bits});
}

template <typename T>
void act(void* const (&lanes)[32]) {
  float a[16][16], b[16][8], d[16][8];
  for (int l = 0; l < 32; ++l) {
    const auto* lane = static_cast<const Lane*>(lanes[l]);
    CHECK(lane != nullptr);  // all 32 lanes take part
    const int g = l / 4, t = l % 4;
    for (int r = 0; r < 4; ++r)
      for (int h = 0; h < 2; ++h) a[g + 8 * (r % 2)][2 * t + 8 * (r / 2) + h] = element<T>(lane->a->reg[r], h);
    for (int r = 0; r < 2; ++r)
      for (int h = 0; h < 2; ++h) b[2 * t + 8 * r + h][g] = element<T>(lane->b->reg[r], h);
    for (int i = 0; i < 4; ++i) d[g + 8 * (i / 2)][2 * t + i % 2] = lane->c->value[i];
  }
  multiply(d, a, b);
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i)
      static_cast<const Lane*>(lanes[l])->c->value[i] = d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
}

struct LoadLane {
  uint32_t* reg;
  const uint32_t* row;
};
}  // namespace mma_twin

template <typename T>
void multiply_accumulate(FragmentC& c, const FragmentA& a, const FragmentB& b) {
  mma_twin::Lane lane{&c, &a, &b};
  emulator::meet_warp(&lane, mma_twin::act<T>);
}

inline void load_matrices(uint32_t (&reg)[4], const void* row_of_lane) {
  mma_twin::LoadLane lane{reg, static_cast<const uint32_t*>(row_of_lane)};
  emulator::check_aligned_16(row_of_lane, "names a row of a matrix that is not aligned to 16 bytes");
  emulator::meet_warp(&lane, [](void* const(&lanes)[32]) {
    for (int l = 0; l < 32; ++l)
      for (int m = 0; m < 4; ++m) {
        const auto* row = static_cast<const mma_twin::LoadLane*>(lanes[8 * m + l / 4]);
        std::memcpy(&static_cast<mma_twin::LoadLane*>(lanes[l])->reg[m], row->row + l % 4, sizeof(uint32_t));
      }
  });
}

/// Two floats rounded to T, nearest even: low in the lower half.
template <typename T>
uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return uint32_t{to_bf16(low).bits} | uint32_t{to_bf16(high).bits} << 16;
  else
    return uint32_t{to_f16(low).bits} | uint32_t{to_f16(high).bits} << 16;
}

#endif

}  // namespace chorale::worker::inline SIMT
