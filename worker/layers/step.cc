#include "worker/layers/step.h"

#include <algorithm>

#include "worker/ops/workspace.h"

namespace chorale::worker {

const int32_t* place_ints(OpContext& op, std::span<const int32_t> values) {
  if (op.device == DeviceKind::kCpu || values.empty()) return values.data();
  auto* copy = op.scratch.take<int32_t>(static_cast<int64_t>(values.size()));
  op.stream->copy(copy, values.data(), values.size_bytes(), CopyKind::kHostToDevice);
  return copy;
}

BatchArrays place_batch(OpContext& op, const Batch& batch) {
  if (op.device == DeviceKind::kCpu)
    return {batch.positions.data(), batch.slots.data(), batch.query_start.data(), batch.context_len.data(),
            batch.block_table.data()};
  std::vector<int32_t> all;  // one copy instead of five
  const auto append = [&all](const std::vector<int32_t>& values) {
    const size_t begin = all.size();
    all.insert(all.end(), values.begin(), values.end());
    return begin;
  };
  const size_t positions = append(batch.positions), slots = append(batch.slots),
               query_start = append(batch.query_start), context_len = append(batch.context_len),
               block_table = append(batch.block_table);
  const int32_t* copy = place_ints(op, all);
  return {copy + positions, copy + slots, copy + query_start, copy + context_len, copy + block_table};
}

}  // namespace chorale::worker
