#include "worker/kernels/cuda/emulator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <boost/context/fiber.hpp>
#include <boost/context/fixedsize_stack.hpp>

#include "comm/base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace chorale::emulator {
namespace {
namespace context = boost::context;

constexpr unsigned kWarpSize = 32, kMaxThreads = 1024;
constexpr size_t kMaxSharedBytes = size_t{227} << 10;  // of a block on sm_90, opted in
constexpr size_t kStackBytes = size_t{64} << 10;

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpBarrier, kDone };

struct PendingCopy {
  void* to;
  const void* from;
  size_t bytes;
};

// One CUDA thread. Its fibre outlives blocks and launches: a fibre that is done waits for the next block's thread of
// the same number.
struct Thread {
  context::fiber fibre;    // where to go on; empty while it runs
  context::fiber machine;  // where it came from; empty while it waits
  context::stack_context stack;
  State state = State::kDone;
  Dim3 index;
  void* mine = nullptr;   // what it brought to the warp's meeting
  WarpAct act = nullptr;  // and what for
  std::deque<std::vector<PendingCopy>> copy_groups;
  std::vector<PendingCopy> open_copies;
};

// Tells ASan which stack is in use; without it a CHECK inside a fibre would confuse it.
class StackSwitch {
 public:
#if defined(__SANITIZE_ADDRESS__)
  void leave(const void* bottom, size_t size) { __sanitizer_start_switch_fiber(&fake_, bottom, size); }
  void arrive(const void** bottom, size_t* size) { __sanitizer_finish_switch_fiber(fake_, bottom, size); }

 private:
  void* fake_ = nullptr;
#else
  void leave(const void*, size_t) {}
  void arrive(const void**, size_t*) {}
#endif
};

constexpr std::align_val_t kSharedAlignment{128};
struct FreeAligned {
  void operator()(std::byte* p) const { ::operator delete[](p, kSharedAlignment); }
};

// Of all threads that launch.
struct Totals {
  std::atomic<uint64_t> launches{0}, blocks{0}, switches{0};
} totals;

class Machine {
 public:
  void run(const Launch& launch, void (*entry)(const void*), const void* params) {
    CHECK(current_ == nullptr);  // a kernel launches no kernel
    const unsigned size = launch.block.x * launch.block.y * launch.block.z;
    CHECK(size >= 1 && size <= kMaxThreads);
    CHECK_LE(launch.shared_bytes, kMaxSharedBytes);
    CHECK(launch.grid.x >= 1 && launch.grid.y >= 1 && launch.grid.z >= 1);
    CHECK(launch.grid.y <= 65535 && launch.grid.z <= 65535);
    launch_ = launch;
    entry_ = entry;
    params_ = params;
    size_ = size;
    while (threads_.size() < size) threads_.push_back(std::make_unique<Thread>());
    // Its own allocation, exact to the byte, so that ASan sees an access past it.
    const std::unique_ptr<std::byte[], FreeAligned> shared(new (kSharedAlignment)
                                                               std::byte[std::max<size_t>(1, launch.shared_bytes)]);
    shared_ = shared.get();
    num_switches_ = 0;
    for (block_.z = 0; block_.z < launch.grid.z; ++block_.z)
      for (block_.y = 0; block_.y < launch.grid.y; ++block_.y)
        for (block_.x = 0; block_.x < launch.grid.x; ++block_.x) run_block();
    shared_ = nullptr;
    totals.launches += 1;
    totals.blocks += uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
    totals.switches += num_switches_;
  }

  void set_order(Order order) { order_ = order; }
  Order order() const { return order_; }
  Thread& current() {
    CHECK(current_ != nullptr);
    return *current_;
  }
  unsigned number() const { return number_; }
  const Dim3& block_index() const { return block_; }
  const Launch& launch() const { return launch_; }
  std::byte* shared() const { return shared_; }

  void meet_block() {
    current().state = State::kAtBlockBarrier;
    ++at_block_barrier_;
    if (!open_block_barrier()) leave_fibre();
  }

  void meet_warp(void* mine, WarpAct act) {
    Thread& self = current();
    const unsigned warp = number_ / kWarpSize;
    if (live_in_warp_[warp] != size_of_warp(warp)) refuse("meets its warp, of which a lane has ended");
    if (act != nullptr && live_in_warp_[warp] != kWarpSize) refuse("meets for all 32 lanes in a warp that has fewer");
    self.mine = mine;
    self.act = act;
    self.state = State::kAtWarpBarrier;
    ++at_warp_barrier_[warp];
    if (!open_warp_barrier(warp)) leave_fibre();
  }

  // A fibre cannot throw: the machine does it for this one, which never goes on.
  [[noreturn]] void refuse(const char* why) {
    CHECK(current_ != nullptr);
    complaint_ = fmt::format("block ({}, {}, {}), thread {} {}", block_.x, block_.y, block_.z, number_, why);
    for (;;) leave_fibre();
  }

 private:
  void run_block() {
    std::memset(shared_, 0xff, launch_.shared_bytes);  // NaN as float32, float16 and bfloat16
    live_ = size_;
    at_block_barrier_ = 0;
    std::fill(at_warp_barrier_.begin(), at_warp_barrier_.end(), 0u);
    for (unsigned w = 0; w * kWarpSize < size_; ++w) live_in_warp_[w] = size_of_warp(w);
    for (unsigned i = 0; i < size_; ++i) {
      const unsigned plane = launch_.block.x * launch_.block.y;
      threads_[i]->index = {i % launch_.block.x, i / launch_.block.x % launch_.block.y, i / plane};
      threads_[i]->state = State::kReady;
    }
    while (live_ > 0) {
      if (run_ready_threads()) continue;
      give_up(describe_stuck());
    }
  }

  [[noreturn]] void give_up(const std::string& why) {
    threads_.clear();  // their stacks hold a kernel that will never end
    fail(ErrorCode::kSystem, "{}", why);
  }

  unsigned size_of_warp(unsigned warp) const { return std::min(kWarpSize, size_ - warp * kWarpSize); }

  bool run_ready_threads() {
    bool any = false;
    for (unsigned i = 0; i < size_; ++i) {
      const unsigned number = pick(i);
      if (threads_[number]->state != State::kReady) continue;
      any = true;
      enter_fibre(number);
      if (!complaint_.empty()) give_up(std::exchange(complaint_, {}));
    }
    return any;
  }

  unsigned pick(unsigned i) {
    switch (order_) {
      case Order::kForward: return i;
      case Order::kBackward: return size_ - 1 - i;
      case Order::kShuffled: break;
    }
    if (i == 0) {
      shuffled_.resize(size_);
      for (unsigned k = 0; k < size_; ++k) shuffled_[k] = k;
      std::shuffle(shuffled_.begin(), shuffled_.end(), random_);
    }
    return shuffled_[i];
  }

  void enter_fibre(unsigned number) {
    ++num_switches_;
    Thread& thread = *threads_[number];
    number_ = number;
    current_ = &thread;
    if (!thread.fibre) make_fibre(thread);
    StackSwitch stack;
    stack.leave(static_cast<std::byte*>(thread.stack.sp) - thread.stack.size, thread.stack.size);
    thread.fibre = std::move(thread.fibre).resume();
    stack.arrive(nullptr, nullptr);
    current_ = nullptr;
  }

  void make_fibre(Thread& thread) {
    context::fixedsize_stack allocator(kStackBytes);
    thread.stack = allocator.allocate();
    thread.fibre =
        context::fiber(std::allocator_arg, context::preallocated(thread.stack.sp, thread.stack.size, thread.stack),
                       allocator, [this](context::fiber&& machine) {
                         StackSwitch stack;
                         stack.arrive(&machine_bottom_, &machine_size_);
                         current_->machine = std::move(machine);
                         for (;;) {
                           entry_(params_);
                           end_thread();
                           leave_fibre();
                         }
                         return context::fiber();  // never: a fibre ends when its machine does
                       });
  }

  // Back to the machine, until this thread is ready again.
  void leave_fibre() {
    Thread& self = *current_;
    StackSwitch stack;
    stack.leave(machine_bottom_, machine_size_);
    self.machine = std::move(self.machine).resume();
    stack.arrive(&machine_bottom_, &machine_size_);
  }

  void end_thread() {
    Thread& self = *current_;
    CHECK(self.open_copies.empty() && self.copy_groups.empty());  // asynchronous copies that nobody waited for
    if (at_warp_barrier_[number_ / kWarpSize] > 0) refuse("ends while other lanes of its warp wait to meet");
    self.state = State::kDone;
    --live_;
    --live_in_warp_[number_ / kWarpSize];
    open_block_barrier();
  }

  bool open_block_barrier() {
    if (live_ == 0 || at_block_barrier_ != live_) return false;
    at_block_barrier_ = 0;
    for (unsigned i = 0; i < size_; ++i)
      if (threads_[i]->state == State::kAtBlockBarrier) threads_[i]->state = State::kReady;
    return true;
  }

  bool open_warp_barrier(unsigned warp) {
    if (at_warp_barrier_[warp] != size_of_warp(warp)) return false;
    at_warp_barrier_[warp] = 0;
    const WarpAct act = current_->act;
    void* lanes[kWarpSize] = {};
    for (unsigned i = 0; i < size_of_warp(warp); ++i) {
      Thread& thread = *threads_[warp * kWarpSize + i];
      if (thread.act != act) refuse("meets its warp for another instruction than a lane that waits there");
      lanes[i] = thread.mine;
      thread.state = State::kReady;
    }
    if (act != nullptr) act(lanes);
    return true;
  }

  std::string describe_stuck() const {
    std::string block, warp;
    for (unsigned i = 0; i < size_; ++i) {
      if (threads_[i]->state == State::kAtBlockBarrier) block += fmt::format(" {}", i);
      if (threads_[i]->state == State::kAtWarpBarrier) warp += fmt::format(" {}", i);
    }
    return fmt::format(
        "block ({}, {}, {}) is stuck: a barrier that not every thread reaches; waiting for the block:{}; for their "
        "warp:{}",
        block_.x, block_.y, block_.z, block.empty() ? " none" : block, warp.empty() ? " none" : warp);
  }

  Launch launch_;
  void (*entry_)(const void*) = nullptr;
  const void* params_ = nullptr;
  unsigned size_ = 0;  // threads of a block
  std::byte* shared_ = nullptr;
  Dim3 block_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Thread* current_ = nullptr;
  unsigned number_ = 0;
  unsigned live_ = 0, at_block_barrier_ = 0;
  std::array<unsigned, kMaxThreads / kWarpSize> live_in_warp_{}, at_warp_barrier_{};
  std::string complaint_;  // of the thread that ran last
  Order order_ = Order::kForward;
  std::vector<unsigned> shuffled_;
  std::minstd_rand random_{1};
  const void* machine_bottom_ = nullptr;  // of the stack that launched; for ASan only
  size_t machine_size_ = 0;
  uint64_t num_switches_ = 0;  // of this launch
};

thread_local Machine machine;

}  // namespace

void run(const Launch& launch, void (*entry)(const void*), const void* params) { machine.run(launch, entry, params); }
void set_order(Order order) { machine.set_order(order); }
Order order() { return machine.order(); }
const Dim3& thread_index() { return machine.current().index; }
const Dim3& block_index() { return machine.block_index(); }
const Dim3& block_dims() { return machine.launch().block; }
const Dim3& grid_dims() { return machine.launch().grid; }
unsigned lane() { return machine.number() % kWarpSize; }
unsigned warp() { return machine.number() / kWarpSize; }
std::byte* shared_memory() { return machine.shared(); }
void meet_block() { machine.meet_block(); }
void meet_warp(void* mine, WarpAct act) { machine.meet_warp(mine, act); }
void refuse(const char* why) { machine.refuse(why); }

void copy_async(void* to, const void* from, size_t bytes) {
  if (bytes == 16) {
    check_aligned_16(to, "copies 16 bytes to shared memory that is not aligned to 16");
    check_aligned_16(from, "copies 16 bytes from memory that is not aligned to 16");
  }
  machine.current().open_copies.push_back({to, from, bytes});
}
void copy_async_commit() {
  Thread& thread = machine.current();
  thread.copy_groups.push_back(std::exchange(thread.open_copies, {}));
}
void copy_async_wait(unsigned groups_left) {
  Thread& thread = machine.current();
  while (thread.copy_groups.size() > groups_left) {
    for (const PendingCopy& copy : thread.copy_groups.front()) std::memcpy(copy.to, copy.from, copy.bytes);
    thread.copy_groups.pop_front();
  }
}

Counters counters() { return {totals.launches, totals.blocks, totals.switches}; }

}  // namespace chorale::emulator
