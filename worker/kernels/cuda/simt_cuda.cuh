// simt.cuh for nvcc: each word is the instruction that it names.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <type_traits>
#include <utility>

#include "comm/base/device.h"
#include "comm/base/dtype.h"
#include "comm/base/error.h"
#include "comm/cuda/cuda_error.h"
#include "worker/ops/context.h"

namespace chorale::worker::inline SIMT {

constexpr DeviceKind kKernelDevice = DeviceKind::kCuda;
using Dim3 = dim3;
struct LaunchShape {
  Dim3 grid;
  Dim3 block;
  size_t shared_bytes = 0;
};
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ unsigned lane() {
  unsigned id;
  asm("mov.u32 %0, %%laneid;" : "=r"(id));
  return id;
}
__device__ __forceinline__ uint3 thread_index() { return threadIdx; }
__device__ __forceinline__ uint3 block_index() { return blockIdx; }
__device__ __forceinline__ dim3 block_dims() { return blockDim; }
__device__ __forceinline__ dim3 grid_dims() { return gridDim; }
__device__ __forceinline__ unsigned warp() {
  return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) / 32;
}
template <typename T>
__device__ __forceinline__ T* shared_memory() {
  extern __shared__ __align__(128) unsigned char launch_shared_memory[];
  return reinterpret_cast<T*>(launch_shared_memory);
}

__device__ __forceinline__ void sync_block() { __syncthreads(); }
/// sync_block() for warps with different work, each at a place of its own in the code, where __syncthreads() must not
/// stand: a barrier counts warps, wherever they wait (PTX ISA, bar.sync). Not 0, which is that of __syncthreads().
__device__ __forceinline__ void sync_roles() { asm volatile("bar.sync 1;" ::: "memory"); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

template <typename T>
__device__ __forceinline__ T shuffle(T value, unsigned source) {
  return __shfl_sync(kAllLanes, value, static_cast<int>(source));
}
template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, unsigned mask) {
  return __shfl_xor_sync(kAllLanes, value, static_cast<int>(mask));
}
template <typename T>
__device__ __forceinline__ T shuffle_up(T value, unsigned delta) {
  return __shfl_up_sync(kAllLanes, value, delta);
}
template <typename T>
__device__ __forceinline__ T shuffle_down(T value, unsigned delta) {
  return __shfl_down_sync(kAllLanes, value, delta);
}
__device__ __forceinline__ uint32_t ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }
__device__ __forceinline__ bool any_of_warp(bool predicate) { return __any_sync(kAllLanes, predicate); }
template <typename T>
__device__ __forceinline__ T atomic_add(T* target, T value) {
  static_assert(sizeof(T) == 4 && std::is_integral_v<T>);
  return atomicAdd(target, value);
}

__device__ __forceinline__ float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
__device__ __forceinline__ float sqrt_f32(float x) { return __fsqrt_rn(x); }
__device__ __forceinline__ uint32_t bits_of(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float float_of(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ int64_t bits_of(double x) { return __double_as_longlong(x); }
__device__ __forceinline__ double double_of(int64_t bits) { return __longlong_as_double(bits); }

__device__ __forceinline__ float to_f32(float x) { return x; }
__device__ __forceinline__ float to_f32(BFloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float to_f32(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }
__device__ __forceinline__ BFloat16 to_bf16(float x) { return {__bfloat16_as_ushort(__float2bfloat16_rn(x))}; }
__device__ __forceinline__ Float16 to_f16(float x) { return {__half_as_ushort(__float2half_rn(x))}; }

struct alignas(16) Bytes16 {
  uint32_t word[4];
};
__device__ __forceinline__ Bytes16 load_once_16(const void* p) {
  Bytes16 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.word[0]), "=r"(v.word[1]), "=r"(v.word[2]), "=r"(v.word[3])
               : "l"(p));
  return v;
}

__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<unsigned>(__cvta_generic_to_shared(shared))),
      "l"(global)
      : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <unsigned kGroupsLeft>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroupsLeft) : "memory");
}

/// Lets the kernel ask for all the shared memory that the current device can give to a block: once for each kernel and
/// device and never for less, so that no launch takes from another of the same kernel, by another rank's thread, what
/// it is about to use. Throws what check_cuda throws.
inline void grant_shared_memory(const void* kernel) {
  static std::mutex mutex;
  static std::set<std::pair<const void*, int>> granted;
  int device = 0, most = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  if (granted.contains({kernel, device})) return;
  check_cuda(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "cudaDeviceGetAttribute");
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most), "cudaFuncSetAttribute");
  granted.emplace(kernel, device);
}

/// Throws Error{kSystem} for a launch that the device refuses, and for what failed on the device before it. What fails
/// while the kernel runs shows at the stream's next synchronisation.
template <typename Params>
void launch(OpContext& ctx, void (*kernel)(Params), const LaunchShape& shape, const Params& params) {
  constexpr size_t kSharedWithoutAsking = size_t{48} << 10;
  if (shape.shared_bytes > kSharedWithoutAsking) grant_shared_memory(reinterpret_cast<const void*>(kernel));
  kernel<<<shape.grid, shape.block, shape.shared_bytes, static_cast<cudaStream_t>(ctx.stream->native())>>>(params);
  const cudaError_t status = cudaGetLastError();  // which also forgets it
  if (status == cudaSuccess) return;
  if (is_sticky(status)) fail_cuda(status, "work before a kernel's launch");
  fail(ErrorCode::kSystem, "a kernel with {} x {} threads and {} bytes of shared memory was refused: {}",
       shape.grid.x * shape.grid.y * shape.grid.z, shape.block.x * shape.block.y * shape.block.z, shape.shared_bytes,
       cudaGetErrorString(status));
}

}  // namespace chorale::worker::inline SIMT
