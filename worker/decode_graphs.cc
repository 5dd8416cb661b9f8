#include "worker/decode_graphs.h"

#include <algorithm>

#include "comm/base/error.h"
#include "worker/ops/attention.h"
#include "worker/ops/host_staging.h"

namespace chorale::worker {
namespace {
constexpr int64_t kAlignment = 4;  // arrays begin at multiples of 16 bytes

int64_t splits_of(int64_t blocks) { return (blocks * kBlockTokens + kSplitKeys - 1) / kSplitKeys; }
}  // namespace

DecodeGraphs::Layout DecodeGraphs::layout_of(int64_t rows, int64_t max_blocks) {
  int64_t end = 0;
  const auto take = [&end](int64_t count) {
    const int64_t begin = end;
    end += (count + kAlignment - 1) / kAlignment * kAlignment;
    return begin;
  };
  Layout at{};
  at.sources = take(rows);
  at.positions = take(rows);
  at.slots = take(rows);
  at.query_start = take(rows + 1);
  at.context_len = take(rows);
  at.split_start = take(rows + 1);
  at.block_table = take(rows * max_blocks);
  at.end = end;
  return at;
}

DecodeGraphs::DecodeGraphs(OpContext& op, const DeviceStream& where, const Limits& limits)
    : op_(op), stream_(*where.stream), limits_(limits) {
  CHECK(limits.max_rows >= 1 && limits.max_blocks >= 1);
  for (int64_t rows = 1; rows < limits.max_rows; rows *= 2)
    buckets_.push_back({rows, layout_of(rows, limits.max_blocks), nullptr});
  buckets_.push_back({limits.max_rows, layout_of(limits.max_rows, limits.max_blocks), nullptr});
  inputs_ = Tensor(*where.device, DType::kI32, {buckets_.back().at.end});
  hidden_ = Tensor(*where.device, DType::kF32, {limits.max_rows, limits.hidden_size});
  if (limits.logits_rows > 0) logits_ = Tensor(*where.device, DType::kF32, {limits.logits_rows, limits.vocab_size});
}

MatrixView DecodeGraphs::hidden(int64_t rows) const {
  return {hidden_.view().data, DType::kF32, rows, limits_.hidden_size, limits_.hidden_size, op_.device};
}

MatrixView DecodeGraphs::logits(const Bucket& bucket, int64_t rows) const {
  if (bucket.rows > limits_.logits_rows) return {};
  return {logits_.view().data, DType::kF32, rows, limits_.vocab_size, limits_.vocab_size, op_.device};
}

const DecodeGraphs::Bucket& DecodeGraphs::bucket_for(int64_t rows) const {
  return *std::ranges::find_if(buckets_, [rows](const Bucket& bucket) { return bucket.rows >= rows; });
}

bool DecodeGraphs::takes(const Batch& batch) const {
  const int64_t rows = batch.num_tokens();
  return rows >= 1 && rows == batch.num_chunks() && rows <= limits_.max_rows &&
         batch.block_table_stride <= limits_.max_blocks && buckets_.back().graph != nullptr;
}

// Rows past the batch's write no key (slot -1), see none (no context) and take id 0: their results are read by nobody.
std::vector<int32_t> DecodeGraphs::packed(const Bucket& bucket, const Batch& batch,
                                          const std::vector<int32_t>& sources) const {
  const int64_t rows = batch.num_tokens();
  std::vector<int32_t> all(static_cast<size_t>(bucket.at.block_table + rows * limits_.max_blocks), 0);
  const auto put = [&all](int64_t at, const std::vector<int32_t>& values) {
    std::ranges::copy(values, all.begin() + at);
  };
  put(bucket.at.sources, sources);
  put(bucket.at.positions, batch.positions);
  std::fill_n(all.begin() + bucket.at.slots, bucket.rows, -1);
  put(bucket.at.slots, batch.slots);
  for (int64_t i = 0; i <= bucket.rows; ++i)
    all[static_cast<size_t>(bucket.at.query_start + i)] = static_cast<int32_t>(i);
  put(bucket.at.context_len, batch.context_len);
  std::vector<int32_t> contexts = batch.context_len;
  contexts.resize(static_cast<size_t>(bucket.rows), 0);
  put(bucket.at.split_start, split_starts(contexts));
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(batch.block_table.begin() + i * batch.block_table_stride, batch.block_table_stride,
                all.begin() + bucket.at.block_table + i * limits_.max_blocks);
  return all;
}

DecodeGraphs::Ready DecodeGraphs::load(const Batch& batch, const std::vector<int32_t>& sources) {
  const Bucket& bucket = bucket_for(batch.num_tokens());
  const std::vector<int32_t> all = packed(bucket, batch, sources);
  op_.staging->copy(inputs_.view().data, all.data(), all.size() * sizeof(int32_t));
  return {*bucket.graph, hidden(batch.num_tokens()), logits(bucket, batch.num_tokens())};
}

void DecodeGraphs::run_body(const Bucket& bucket, const Body& body, Deadline deadline) {
  Batch shape;  // layers read sizes from it, and everything else from the arrays
  const auto rows = static_cast<size_t>(bucket.rows);
  shape.positions.resize(rows);
  shape.slots.resize(rows);
  shape.query_start.resize(rows + 1);
  shape.context_len.resize(rows);
  shape.block_table_stride = limits_.max_blocks;
  const Workspace::Scope scope(op_.scratch);
  Step step{op_,
            shape,
            {.positions = input(bucket.at.positions),
             .slots = input(bucket.at.slots),
             .query_start = input(bucket.at.query_start),
             .context_len = input(bucket.at.context_len),
             .block_table = input(bucket.at.block_table),
             .split_start = input(bucket.at.split_start),
             .max_splits = static_cast<int>(bucket.rows * splits_of(limits_.max_blocks)),
             .max_query_len = 1},
            deadline};
  body(step, input(bucket.at.sources), hidden(bucket.rows), logits(bucket, bucket.rows));
}

// The largest first, both: scratch does not grow any more while the others run.
void DecodeGraphs::rehearse(const Body& body, Deadline deadline) {
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
    const std::vector<int32_t> nothing = packed(*bucket, {}, {});
    op_.staging->copy(inputs_.view().data, nothing.data(), nothing.size() * sizeof(int32_t));
    run_body(*bucket, body, deadline);
    stream_.synchronize(deadline);
  }
}

void DecodeGraphs::capture(const Body& body, const std::function<void(int64_t done, int64_t total)>& progress,
                           Deadline deadline) {
  const auto total = static_cast<int64_t>(buckets_.size());
  int64_t done = 0;
  for (auto bucket = buckets_.rbegin(); bucket != buckets_.rend(); ++bucket) {
    std::unique_ptr<Graph> graph = stream_.capture([&] { run_body(*bucket, body, deadline); });
    bucket->graph = std::move(graph);
    progress(++done, total);
  }
}

}  // namespace chorale::worker
