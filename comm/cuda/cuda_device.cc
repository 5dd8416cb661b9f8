// A GPU through the CUDA runtime: memory, streams, events and graphs. No call waits without a deadline, but for copies
// to and from memory that is not pinned and for freeing memory, which the runtime completes before it returns.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <mutex>

#include "comm/base/device.h"
#include "comm/base/log.h"
#include "comm/base/stuck_device.h"
#include "comm/cuda/cuda_error.h"
#include "comm/cuda/cuda_survey.h"

namespace chorale {
namespace {

/// For destructors: what fails while things go away is told, not thrown. The runtime itself may already be gone.
void log_failure(cudaError_t status, const char* call) noexcept {
  if (status == cudaSuccess || status == cudaErrorCudartUnloading) return;
  cudaGetLastError();
  log_warn("{} failed: {}", call, cudaGetErrorString(status));
}

class CudaEvent : public Event {
 public:
  explicit CudaEvent(EventTiming timing) {
    const unsigned flags = timing == EventTiming::kOn ? cudaEventDefault : cudaEventDisableTiming;
    check_cuda(cudaEventCreateWithFlags(&event_, flags), "cudaEventCreateWithFlags");
  }
  ~CudaEvent() override { log_failure(cudaEventDestroy(event_), "cudaEventDestroy"); }
  void* native() const override { return event_; }
  std::chrono::nanoseconds since(const Event& earlier) const override {
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(earlier.native()), event_),
               "cudaEventElapsedTime");
    return std::chrono::nanoseconds(static_cast<int64_t>(static_cast<double>(milliseconds) * 1e6));
  }

 private:
  cudaEvent_t event_ = nullptr;
};
cudaEvent_t event_of(const Event& event) { return static_cast<cudaEvent_t>(event.native()); }

class CudaGraph : public Graph {
 public:
  explicit CudaGraph(cudaGraph_t recorded) {
    const cudaError_t status = cudaGraphInstantiate(&graph_, recorded, 0);
    log_failure(cudaGraphDestroy(recorded), "cudaGraphDestroy");
    check_cuda(status, "cudaGraphInstantiate");
  }
  ~CudaGraph() override { log_failure(cudaGraphExecDestroy(graph_), "cudaGraphExecDestroy"); }
  void launch(Stream& stream) override {
    check_cuda(cudaGraphLaunch(graph_, static_cast<cudaStream_t>(stream.native())), "cudaGraphLaunch");
  }

 private:
  cudaGraphExec_t graph_ = nullptr;
};

constexpr std::chrono::minutes kCopyDeadline{2};

bool is_pageable(const void* host_memory) {
  cudaPointerAttributes attributes{};
  check_cuda(cudaPointerGetAttributes(&attributes, host_memory), "cudaPointerGetAttributes");
  return attributes.type == cudaMemoryTypeUnregistered;
}

class CudaStream : public Stream {
 public:
  CudaStream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"); }
  ~CudaStream() override { log_failure(cudaStreamDestroy(stream_), "cudaStreamDestroy"); }

  void copy(void* to, const void* from, size_t bytes, CopyKind kind) override {
    static constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost,
                                                cudaMemcpyDeviceToDevice};
    if (bytes == 0) return;
    // CUDA does not say when a copy of pageable memory has ended with its source, and waits for its target without a
    // deadline: both are waited for here.
    if (kind == CopyKind::kDeviceToHost && is_pageable(to)) synchronize(Deadline::after(kCopyDeadline));
    check_cuda(cudaMemcpyAsync(to, from, bytes, kKinds[static_cast<size_t>(kind)], stream_), "cudaMemcpyAsync");
    if (kind == CopyKind::kHostToDevice && is_pageable(from)) synchronize(Deadline::after(kCopyDeadline));
  }
  void fill_zero(void* to, size_t bytes) override {
    if (bytes > 0) check_cuda(cudaMemsetAsync(to, 0, bytes, stream_), "cudaMemsetAsync");
  }
  void record(Event& event) override { check_cuda(cudaEventRecord(event_of(event), stream_), "cudaEventRecord"); }
  void wait(Event& event) override {
    check_cuda(cudaStreamWaitEvent(stream_, event_of(event), 0), "cudaStreamWaitEvent");
  }
  void synchronize(Deadline deadline) override {
    await([&] { return cudaStreamQuery(stream_); }, deadline, "the work of a stream");
  }
  void synchronize(Event& event, Deadline deadline) override {
    await([&] { return cudaEventQuery(event_of(event)); }, deadline, "an event");
  }
  bool is_done(Event& event) override {
    const cudaError_t status = cudaEventQuery(event_of(event));
    if (status == cudaSuccess) return true;
    if (status != cudaErrorNotReady) {
      note_stuck_device();
      fail_cuda(status, "an event");
    }
    cudaGetLastError();  // the runtime may remember "not ready" as the last error
    check_watches();
    return false;
  }
  std::unique_ptr<Graph> capture(std::function<void()> work) override {
    check_cuda(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    cudaGraph_t recorded = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream_, &recorded);  // the work's own error is the one to tell
      if (recorded != nullptr) cudaGraphDestroy(recorded);
      cudaGetLastError();
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream_, &recorded), "cudaStreamEndCapture");
    return std::make_unique<CudaGraph>(recorded);
  }
  bool is_capturing() const override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(cudaStreamIsCapturing(stream_, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;  // also one that is spoilt already
  }
  void* native() const override { return stream_; }

 private:
  template <typename Query>
  void await(const Query& query, Deadline deadline, const char* what) const {
    const auto meanwhile = [&](bool is_expired) {
      check_watches();
      if (is_expired) fail_deadline(fmt::format("the GPU: {}", what));
    };
    try {
      await_cuda(query, meanwhile, deadline, what);
    } catch (...) {
      note_stuck_device();
      throw;
    }
  }

  cudaStream_t stream_ = nullptr;
};

/// Thread: any; a thread works on the device (streams, events, kernels) after it opened it or called a function of this
/// class, which makes it the thread's current one. One device a process is what workers do; threads that use several
/// call one of these functions between them. Streams belong to one thread at a time, as the interface says.
class CudaDevice : public Device {
 public:
  explicit CudaDevice(int ordinal) : ordinal_(ordinal) {
    bind();
    check_cuda(cudaGetDeviceProperties(&properties_, ordinal_), "cudaGetDeviceProperties");
    setup_ = std::make_unique<CudaStream>();
  }

  DeviceKind kind() const override { return DeviceKind::kCuda; }
  std::string name() const override { return properties_.name; }
  std::string arithmetic() const override { return fmt::format("sm_{}{}", properties_.major, properties_.minor); }
  std::string identity() const override {  // also of a part of one (MIG), and where a process sees only some
    std::string hex;
    for (const char byte : properties_.uuid.bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(byte));
    return hex;
  }
  std::string bus_id() const override {
    char text[32] = {};
    check_cuda(cudaDeviceGetPCIBusId(text, sizeof text, ordinal_), "cudaDeviceGetPCIBusId");
    return text;
  }
  DeviceMemory memory() const override {
    bind();
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return {.free_bytes = free, .total_bytes = total};
  }

  void* allocate(size_t bytes) override {
    bind();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, std::max<size_t>(bytes, 1));  // 0 bytes have an address too
    if (status == cudaErrorMemoryAllocation) fail_out_of_memory(bytes);
    check_cuda(status, "cudaMalloc");
    try {
      const std::lock_guard lock(setup_mutex_);
      setup_->fill_zero(memory, bytes);
      setup_->synchronize(Deadline::after(kZeroTime));  // other streams do not wait for this one
    } catch (...) {
      release(memory, bytes);
      throw;
    }
    return memory;
  }
  void release(void* memory, size_t) noexcept override {
    if (is_device_stuck()) return;  // cudaFree waits for the device
    if (cudaSetDevice(ordinal_) == cudaSuccess) log_failure(cudaFree(memory), "cudaFree");
  }
  void* allocate_pinned(size_t bytes) override {
    bind();
    void* memory = nullptr;
    const cudaError_t status = cudaHostAlloc(&memory, std::max<size_t>(bytes, 1), cudaHostAllocPortable);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      fail(ErrorCode::kResourceExhausted,
           "cannot pin {} bytes of host memory for copies to {}: raise the container's memory limit or free memory of "
           "the host",
           bytes, name());
    }
    check_cuda(status, "cudaHostAlloc");
    return memory;
  }
  void release_pinned(void* memory, size_t) noexcept override {
    if (!is_device_stuck()) log_failure(cudaFreeHost(memory), "cudaFreeHost");
  }

  std::unique_ptr<Stream> make_stream() override {
    bind();
    return std::make_unique<CudaStream>();
  }
  std::unique_ptr<Event> make_event(EventTiming timing) override {
    bind();
    return std::make_unique<CudaEvent>(timing);
  }

 private:
  static constexpr std::chrono::seconds kZeroTime{60};  // the largest memory takes a tenth of one

  void bind() const { check_cuda(cudaSetDevice(ordinal_), "cudaSetDevice"); }

  [[noreturn]] void fail_out_of_memory(size_t bytes) const {
    cudaGetLastError();
    const DeviceMemory now = memory();
    fail(ErrorCode::kResourceExhausted,
         "{} has no room for {} bytes more: {} of {} bytes are free; lower --kv-cache-memory-bytes, --max-model-len or "
         "--max-num-seqs, spread the model over more GPUs (--tp, --pp), or end what else runs there (nvidia-smi)",
         name(), bytes, now.free_bytes, now.total_bytes);
  }

  const int ordinal_;  // of the runtime
  cudaDeviceProp properties_{};
  std::mutex setup_mutex_;             // guards setup_
  std::unique_ptr<CudaStream> setup_;  // zeroes new memory
};

std::unique_ptr<Device> open(int index) { return std::make_unique<CudaDevice>(usable_gpus().at(index)); }

const DeviceRegistry::Add kAdd({"cuda", DeviceKind::kCuda, survey_gpus, open, gpu_facts});

}  // namespace
}  // namespace chorale
