// simt.cuh for the emulator: CUDA's words as plain C++.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "comm/base/dtype.h"
#include "comm/base/emulator_stream.h"
#include "comm/base/tensor.h"
#include "worker/kernels/cuda/emulator.h"
#include "worker/ops/context.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace chorale::worker::inline SIMT {

constexpr DeviceKind kKernelDevice = DeviceKind::kEmulator;
using Dim3 = emulator::Dim3;
using LaunchShape = emulator::Launch;

inline unsigned lane() { return emulator::lane(); }
inline unsigned warp() { return emulator::warp(); }
inline Dim3 thread_index() { return emulator::thread_index(); }
inline Dim3 block_index() { return emulator::block_index(); }
inline Dim3 block_dims() { return emulator::block_dims(); }
inline Dim3 grid_dims() { return emulator::grid_dims(); }
template <typename T>
T* shared_memory() {
  return reinterpret_cast<T*>(emulator::shared_memory());
}

inline void sync_block() { emulator::meet_block(); }
inline void sync_roles() { emulator::meet_block(); }
inline void sync_warp() { emulator::meet_warp(nullptr, nullptr); }

// What a lane brings to a shuffle and takes from it.
template <typename T>
struct ShuffleSlot {
  T give, take;
  unsigned source;
};
template <typename T>
T shuffle(T value, unsigned source) {
  ShuffleSlot<T> slot{value, value, source % 32};
  emulator::meet_warp(&slot, [](void* const(&lanes)[32]) {
    for (void* lane : lanes) {
      auto* self = static_cast<ShuffleSlot<T>*>(lane);
      self->take = static_cast<const ShuffleSlot<T>*>(lanes[self->source])->give;
    }
  });
  return slot.take;
}
template <typename T>
T shuffle_xor(T value, unsigned mask) {
  return shuffle(value, lane() ^ mask);
}
/// Lanes whose source lies outside the warp keep their own value.
template <typename T>
T shuffle_up(T value, unsigned delta) {
  return shuffle(value, lane() < delta ? lane() : lane() - delta);
}
template <typename T>
T shuffle_down(T value, unsigned delta) {
  return shuffle(value, lane() + delta > 31 ? lane() : lane() + delta);
}

/// Bit i: the predicate of lane i.
inline uint32_t ballot(bool predicate) {
  ShuffleSlot<uint32_t> slot{predicate ? 1u : 0u, 0u, 0u};
  emulator::meet_warp(&slot, [](void* const(&lanes)[32]) {
    uint32_t bits = 0;
    for (unsigned i = 0; i < 32; ++i) bits |= static_cast<const ShuffleSlot<uint32_t>*>(lanes[i])->give << i;
    for (void* lane : lanes) static_cast<ShuffleSlot<uint32_t>*>(lane)->take = bits;
  });
  return slot.take;
}
inline bool any_of_warp(bool predicate) { return ballot(predicate) != 0; }

/// Returns the value before.
template <typename T>
T atomic_add(T* target, T value) {
  static_assert(std::is_same_v<T, int32_t> || std::is_same_v<T, uint32_t>);
  const T before = *target;
  *target = before + value;
  return before;
}

inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
inline float sqrt_f32(float x) { return __builtin_sqrtf(x); }
inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }
inline int64_t bits_of(double x) { return std::bit_cast<int64_t>(x); }
inline double double_of(int64_t bits) { return std::bit_cast<double>(bits); }

inline float to_f32(float x) { return x; }
inline float to_f32(BFloat16 x) { return to_float(x); }
inline float to_f32(Float16 x) { return to_float(x); }
inline BFloat16 to_bf16(float x) { return chorale::to_bf16(x); }
inline Float16 to_f16(float x) { return chorale::to_f16(x); }

struct alignas(16) Bytes16 {
  uint32_t word[4];
};
inline Bytes16 load_once_16(const void* p) {
  emulator::check_aligned_16(p, "loads 16 bytes that are not aligned to 16");
  Bytes16 value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

inline void copy_async_16(void* shared, const void* global) { emulator::copy_async(shared, global, 16); }
inline void copy_async_commit() { emulator::copy_async_commit(); }
template <unsigned kGroupsLeft>
void copy_async_wait() {
  emulator::copy_async_wait(kGroupsLeft);
}

/// One launch: all that it needs, by value, since it runs later.
template <typename Params>
struct Launched {
  void (*kernel)(Params);
  LaunchShape shape;
  emulator::Order order;
  Params params;

  void run() const {
    emulator::set_order(order);
    emulator::run(
        shape, [](const void* p) { static_cast<const Launched*>(p)->kernel(static_cast<const Launched*>(p)->params); },
        this);
  }
};

/// In the order of ctx's stream, or at once where it has none that works by itself. What the emulator refuses shows at
/// the stream's next synchronisation.
template <typename Params>
void launch(OpContext& ctx, void (*kernel)(Params), const LaunchShape& shape, const Params& params) {
  const Launched<Params> launched{kernel, shape, emulator::order(), params};
  auto* stream = static_cast<ChoraleEmulatorStream*>(ctx.stream == nullptr ? nullptr : ctx.stream->native());
  if (stream == nullptr) return launched.run();
  stream->enqueue(
      stream,
      [](void* context, char* problem, size_t problem_bytes) {
        try {
          static_cast<const Launched<Params>*>(context)->run();
        } catch (const Error& error) {
          std::strncpy(problem, error.what(), problem_bytes - 1);
          return 1;
        }
        return 0;
      },
      new Launched<Params>(launched), [](void* context) { delete static_cast<Launched<Params>*>(context); });
}

}  // namespace chorale::worker::inline SIMT
