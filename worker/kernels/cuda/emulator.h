// Runs CUDA kernels on the CPU, so that their logic is tested where there is no GPU: one fibre a CUDA thread, one block
// after the other. It checks what hardware leaves undefined: threads that miss a barrier, a warp
// that does not meet as one and misaligned 16-byte accesses are errors with the thread's number, shared memory starts
// as NaNs and ends where the launch said (ASan sees overruns), asynchronous copies arrive as late as they may, and
// threads run in the order that the test chooses. simt_emulated.cuh is its only user besides tests.
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
/// barrier; Error{kSystem} names the threads that do not, and for whatever else refuse() is called.
void run(const Launch& launch, void (*entry)(const void*), const void* params);

/// The order in which threads of a block run between two barriers. A kernel that lacks a barrier gives other bits, or
/// NaNs, in one of them. Of the calling thread; the default is kForward. A launch takes it along to its stream's
/// thread.
enum class Order { kForward, kBackward, kShuffled };
void set_order(Order order);
Order order();

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
/// Returns when all threads of the warp arrived. The last to arrive first calls act(mine of each lane): a warp-wide
/// instruction. Refuses lanes that bring different acts (a shuffle meets a ballot), a lane that ended while others
/// meet, and, where there is an act, a warp of fewer than 32 threads: instructions name all 32 lanes.
using WarpAct = void (*)(void* const (&lanes)[32]);
void meet_warp(void* mine, WarpAct act);
/// Ends the launch: run() throws Error{kSystem} with the thread, its block and `why`.
[[noreturn]] void refuse(const char* why);
/// A 16-byte access, which hardware has only aligned.
inline void check_aligned_16(const void* p, const char* why) {
  if (reinterpret_cast<uintptr_t>(p) % 16 != 0) refuse(why);
}

/// cp.async: the copy happens when the thread waits for its group, not before. Refuses 16 bytes that are not aligned.
void copy_async(void* to, const void* from, size_t bytes);
void copy_async_commit();
void copy_async_wait(unsigned groups_left);

/// The emulator's own counters, of launches of all threads that have ended, for tests and for knowing what an emulated
/// world costs.
struct Counters {
  uint64_t launches = 0, blocks = 0, switches = 0;
};
Counters counters();

}  // namespace chorale::emulator
