#include "worker/layers/step.h"

#include <algorithm>

#include "worker/ops/attention.h"
#include "worker/ops/host_staging.h"
#include "worker/ops/workspace.h"

namespace chorale::worker {

const void* place_bytes(OpContext& op, const void* values, size_t num_bytes) {
  if (op.device == DeviceKind::kCpu || num_bytes == 0) return values;
  void* copy = op.scratch.take_bytes(num_bytes);
  if (op.staging != nullptr)
    op.staging->copy(copy, values, num_bytes);
  else
    op.stream->copy(copy, values, num_bytes, CopyKind::kHostToDevice);
  return copy;
}

BatchArrays place_batch(OpContext& op, const Batch& batch) {
  if (op.device == DeviceKind::kCpu)
    return {batch.positions.data(), batch.slots.data(), batch.query_start.data(), batch.context_len.data(),
            batch.block_table.data()};
  const std::vector<int32_t> splits = split_starts(batch.context_len);
  int max_query_len = 0;
  for (size_t i = 0; i + 1 < batch.query_start.size(); ++i)
    max_query_len = std::max(max_query_len, batch.query_start[i + 1] - batch.query_start[i]);
  std::vector<int32_t> all;  // one copy instead of six
  const auto append = [&all](const std::vector<int32_t>& values) {
    const size_t begin = all.size();
    all.insert(all.end(), values.begin(), values.end());
    return begin;
  };
  const size_t positions = append(batch.positions), slots = append(batch.slots),
               query_start = append(batch.query_start), context_len = append(batch.context_len),
               block_table = append(batch.block_table), split_start = append(splits);
  const int32_t* copy = place(op, std::span<const int32_t>(all));
  return {copy + positions,   copy + slots,       copy + query_start, copy + context_len,
          copy + block_table, copy + split_start, splits.back(),      max_query_len};
}

}  // namespace chorale::worker
