#include "worker/layers/embedding.h"

#include "worker/layers/linear.h"
#include "worker/ops/add_residual.h"
#include "worker/ops/embedding.h"
#include "worker/thread_pool.h"

namespace chorale::worker {

namespace {

// 16-bit tables keep their type; float32 holds every other stored value exactly.
DType table_dtype(parallel::StorageType type) {
  switch (type) {
    case parallel::StorageType::kBF16: return DType::kBF16;
    case parallel::StorageType::kF16: return DType::kF16;
    default: return DType::kF32;
  }
}

// Values of the table's own type, so the rounding changes nothing.
void convert(DType dtype, const std::vector<float>& values, std::vector<uint16_t>& out) {
  out.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i)
    out[i] = dtype == DType::kBF16 ? to_bf16(values[i]).bits : to_f16(values[i]).bits;
}

Tensor copy_table(const DeviceStream& where, const parallel::StoredTensor& table) {
  constexpr int64_t kRowsAtATime = 1024;
  const int64_t rows = table.shape[0], cols = table.shape[1];
  Tensor copy(*where.device, table_dtype(table.type), {rows, cols});
  std::vector<float> values;
  std::vector<uint16_t> narrow;
  for (int64_t begin = 0; begin < rows; begin += kRowsAtATime) {
    const int64_t end = std::min(rows, begin + kRowsAtATime);
    const TensorView part = copy.view().rows(begin, end);
    values.resize(static_cast<size_t>((end - begin) * cols));
    parallel::read_f32(table, begin, end, 0, cols, values.data(), cols);
    if (part.dtype != DType::kF32) convert(part.dtype, values, narrow);
    const void* from = part.dtype == DType::kF32 ? static_cast<const void*>(values.data()) : narrow.data();
    where.stream->copy(part.data, from, part.size_bytes(), CopyKind::kHostToDevice);
  }
  return copy;
}

}  // namespace

Embedding::Embedding(const StageParts& parts, parallel::Member member) : table_(&parts.weights.lookup(member)) {
  if (parts.where) on_device_ = copy_table(parts.where, *table_);
}

void Embedding::lookup(Step& step, const int32_t* ids, MatrixView out) const {
  CHECK_EQ(out.cols, table_->shape[1]);
  if (on_device_.view().data != nullptr) return embedding(step.op, {.ids = ids, .table = on_device_, .out = out});
  for (int64_t i = 0; i < out.rows; ++i) CHECK(ids[i] >= 0 && ids[i] < table_->shape[0]);
  step.op.pool.parallel_for(
      out.rows,
      [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
          parallel::read_f32(*table_, ids[row], ids[row] + 1, 0, out.cols, out.row<float>(row), out.cols);
      },
      /*min_per_thread=*/16);
}

void Embedding::add_to(Step& step, const int32_t* ids, MatrixView out) const {
  const Workspace::Scope scope(step.op.scratch);
  const MatrixView rows = take_matrix(step.op, DType::kF32, out.rows, out.cols);
  lookup(step, ids, rows);
  add_residual(step.op, {.residual = out, .sum = rows, .bias = nullptr});
}

}  // namespace chorale::worker
