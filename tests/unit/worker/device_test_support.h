// Helpers of the tests that run kernels of worker/kernels/cuda: on the emulator, or, with CHORALE_TEST_DEVICE=cuda, on
// a GPU. Tensors are made on the host, computed on by the scalar CPU kernel, and copied to the device and back.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "tests/unit/worker/op_test_support.h"
#include "worker/kernels/cuda/emulator.h"

namespace chorale::worker {

inline DeviceKind test_device_kind() {
  const char* name = std::getenv("CHORALE_TEST_DEVICE");
  return name == nullptr ? DeviceKind::kEmulator : device_kind_from_string(name);
}

/// A device and a CPU rank beside it. All tensors must go before it.
class TestDevice {
 public:
  TestDevice()
      : device_(open_device(test_device_kind(), 0)),
        stream_(device_->make_stream()),
        pool_({.num_threads = 1, .spin_us = 0}),
        scratch_(device_.get(), size_t{1} << 20),
        ctx_{device_->kind(), parallel::Isa::kScalar, pool_, scratch_, stream_.get()} {
    set_compute_thread_fp_state();
  }
  OpContext& ctx() { return ctx_; }
  OpContext& cpu() { return cpu_.ctx; }
  Device& device() { return *device_; }
  Stream& stream() { return *stream_; }
  bool is_emulated() const { return device_->kind() == DeviceKind::kEmulator; }

  Tensor upload(const TensorView& host) {
    CHECK(host.device == DeviceKind::kCpu);
    Tensor copy(*device_, host.dtype, host.shape);
    stream_->copy(copy.view().data, host.data, host.size_bytes(), CopyKind::kHostToDevice);
    stream_->synchronize(deadline());
    return copy;
  }
  template <typename T>
  Tensor upload(const std::vector<T>& values) {
    return upload(TensorView{
        const_cast<T*>(values.data()), DTypeOf<T>::value, DeviceKind::kCpu, {static_cast<int64_t>(values.size())}});
  }
  Tensor download(const TensorView& on_device) {
    stream_->synchronize(deadline());
    Tensor copy(on_device.dtype, on_device.shape);
    stream_->copy(copy.view().data, on_device.data, on_device.size_bytes(), CopyKind::kDeviceToHost);
    stream_->synchronize(deadline());
    return copy;
  }

 private:
  static Deadline deadline() { return Deadline::after(std::chrono::seconds(60)); }
  std::unique_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  ThreadPool pool_;
  Workspace scratch_;
  OpContext ctx_;
  TestRank cpu_;
};

/// Calls fn() once for each order in which the emulator may run a block's threads (once on a GPU): a kernel that lacks
/// a barrier gives other bits in one of them.
template <typename Fn>
void for_each_thread_order(const TestDevice& device, const Fn& fn) {
  if (!device.is_emulated()) return fn();
  for (auto order : {emulator::Order::kForward, emulator::Order::kBackward, emulator::Order::kShuffled}) {
    SCOPED_TRACE("thread order " + std::to_string(static_cast<int>(order)));
    emulator::set_order(order);
    fn();
  }
  emulator::set_order(emulator::Order::kForward);
}

/// Calls fn(kernel) for every kernel of the device that supports the arguments. Returns how many there were.
template <typename Args, typename Fn>
int for_each_device_kernel(TestDevice& device, const Args& args, const Fn& fn) {
  int count = 0;
  for (const Kernel<Args>& kernel : KernelTable<Args>::all()) {
    if (kernel.device != device.ctx().device || !kernel.supports(device.ctx(), args)) continue;
    SCOPED_TRACE(std::string(kernel.name));
    for_each_thread_order(device, [&] { fn(kernel); });
    ++count;
  }
  return count;
}

}  // namespace chorale::worker
