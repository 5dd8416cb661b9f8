// The words in which kernels of this folder are written. Each means the same on a GPU (simt_cuda.cuh: one instruction
// or two) and under the emulator (simt_emulated.cuh: plain C++), so one source serves both. Kernel files include this
// and nothing of CUDA.
//
//   kKernelDevice                        the DeviceKind that this compilation is for
//   lane() warp() thread_index() block_index() block_dims() grid_dims()
//   shared_memory<T>()                   the launch's shared memory; kernels use no other. Starts as NaNs when emulated
//   sync_block() sync_roles() sync_warp()   sync_roles(): from warps with different work
//   shuffle(v, lane) shuffle_xor(v, mask) shuffle_up/down(v, delta)
//   any_of_warp(predicate) ballot(predicate)
//   atomic_add(p, v)                     int32 and uint32 only: float atomics have no order (N4)
//   fma(a, b, c) sqrt_f32(x) bits_of(x) float_of(bits) double_of(bits)
//   to_f32(bf16 | f16) to_bf16 to_f16    round to nearest even
//   load_once_16(p)                      16 bytes that no other thread reads again soon
//   copy_async_16 copy_async_commit copy_async_wait<groups left>
//   launch(ctx, kernel, {grid, block, shared_bytes}, params)
//
// A kernel is a `__global__ void name(Params params)` with one parameter struct, in an anonymous namespace. It is
// compiled without contraction and with correctly rounded division and square root; denormals are flushed on a GPU and,
// where the thread's MXCSR says so, under the emulator. Whatever else a header of this folder defines stands in the
// inline namespace SIMT, because both compilations meet in one executable.
#pragma once

#if defined(__CUDACC__)
#define SIMT cuda_code
#include "worker/kernels/cuda/simt_cuda.cuh"
#else
#define SIMT emulated_code
#include "worker/kernels/cuda/simt_emulated.cuh"
#endif
