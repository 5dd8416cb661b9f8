// Runs CUDA kernels on the CPU, so that their logic is tested where there is no GPU: one fibre a CUDA thread, one block
// after the other. It checks what hardware leaves undefined: threads that miss a barrier are an error with their
// numbers, shared memory starts as NaNs and ends where the launch said (ASan sees overruns), asynchronous copies arrive
// as late as they may, and threads run in the order that the test chooses. simt_emulated.cuh is its only user besides
// tests.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chorale::emulator {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

struct Launch {
  Dim3 grid;
  Dim3 block;
  size_t shared_bytes = 0;
};

/// Runs entry(params) once for each thread of each block, on the calling thread; returns when all are done. CHECKs the
/// limits that real devices have (1024 threads a block, 227 KiB of shared memory) and that every thread gets past every
/// barrier.
void run(const Launch& launch, void (*entry)(const void*), const void* params);

/// The order in which threads of a block run between two barriers. A kernel that lacks a barrier gives other bits, or
/// NaNs, in one of them. Of the calling thread; the default is kForward.
enum class Order { kForward, kBackward, kShuffled };
void set_order(Order order);

// For code that runs inside a launch:
const Dim3& thread_index();
const Dim3& block_index();
const Dim3& block_dims();
const Dim3& grid_dims();
unsigned lane();  // of the thread in its warp of 32
unsigned warp();  // of the thread in its block
std::byte* shared_memory();

/// Returns when all threads of the block that have not ended arrived.
void meet_block();
/// Returns when all threads of the warp that have not ended arrived. The last to arrive first calls
/// act(mine of each lane, context): a warp-wide instruction. `mine` of a lane that ended is nullptr.
using WarpAct = void (*)(void* const (&lanes)[32]);
void meet_warp(void* mine, WarpAct act);

/// cp.async: the copy happens when the thread waits for its group, not before.
void copy_async(void* to, const void* from, size_t bytes);
void copy_async_commit();
void copy_async_wait(unsigned groups_left);

/// The emulator's own counters, for tests and for knowing what an emulated world costs.
struct Counters {
  uint64_t launches = 0, blocks = 0, switches = 0;
};
Counters counters();

}  // namespace chorale::emulator
