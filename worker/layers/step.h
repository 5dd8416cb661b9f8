// Step and Batch: what the layers of a rank see of one step. The stage runner fills them from the step plan; layers
// read them. No job and no sampling parameter gets this far down.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "comm/base/deadline.h"
#include "worker/ops/context.h"

namespace chorale::worker {

/// Rows of this step: chunk after chunk, each chunk's tokens consecutive. Slots and block tables are the same on every
/// rank.
struct Batch {
  std::vector<int32_t> positions;    // [num_tokens] absolute position in its sequence
  std::vector<int32_t> slots;        // [num_tokens] block * 16 + offset where K and V go
  std::vector<int32_t> query_start;  // [num_chunks + 1] first row of each chunk
  std::vector<int32_t> context_len;  // [num_chunks] keys, this step's included
  std::vector<int32_t> block_table;  // [num_chunks, block_table_stride]
  int64_t block_table_stride = 0;

  int64_t num_tokens() const { return static_cast<int64_t>(positions.size()); }
  int num_chunks() const { return static_cast<int>(context_len.size()); }
};

/// A batch's arrays where the kernels read them: the batch's own on the CPU, copies on a device.
struct BatchArrays {
  const int32_t* positions = nullptr;
  const int32_t* slots = nullptr;
  const int32_t* query_start = nullptr;
  const int32_t* context_len = nullptr;
  const int32_t* block_table = nullptr;
  // For attention on devices (worker/ops/attention.h):
  const int32_t* split_start = nullptr;  // [num_chunks + 1]
  int max_splits = 0;                    // split_start's last, or a bound of it
  int max_query_len = 0;                 // rows of the longest chunk, or a bound of it
};
/// Copies are scratch of the current step, in the order of its stream.
BatchArrays place_batch(OpContext& op, const Batch& batch);

/// Host values where the kernels read them, likewise.
const void* place_bytes(OpContext& op, const void* values, size_t num_bytes);
template <typename T>
const T* place(OpContext& op, std::span<const T> values) {
  return static_cast<const T*>(place_bytes(op, values.data(), values.size_bytes()));
}

/// Where the time of a step went; for StageReport only.
enum class TimeKind : uint8_t { kComm, kWait };
struct StepTimes {
  std::chrono::nanoseconds comm{0};
  std::chrono::nanoseconds wait{0};
  std::chrono::nanoseconds& of(TimeKind kind) { return kind == TimeKind::kComm ? comm : wait; }
};

/// Marks parts of a step in the stream of a device.
class SpanRecorder {
 public:
  virtual ~SpanRecorder() = default;
  virtual void begin(TimeKind kind) = 0;
  virtual void end() = 0;
};

struct Step {
  OpContext& op;
  const Batch& batch;
  BatchArrays arrays;
  Deadline deadline;
  StepTimes times = {};           // by the host's clock
  SpanRecorder* spans = nullptr;  // by a device's, instead; nullptr also while a graph is captured
};

/// Accounts for the time from construction to destruction: the host's, or on a device its stream's. They do not nest.
class Stopwatch {
 public:
  Stopwatch(Step& step, TimeKind kind) : step_(step), kind_(kind), start_(Deadline::Clock::now()) {
    if (step.spans != nullptr) step.spans->begin(kind);
  }
  ~Stopwatch() {
    if (step_.spans != nullptr)
      step_.spans->end();
    else
      step_.times.of(kind_) += Deadline::Clock::now() - start_;
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  Step& step_;
  const TimeKind kind_;
  const Deadline::Clock::time_point start_;
};

}  // namespace chorale::worker
