#include "worker/layers/embedding.h"

#include "worker/layers/linear.h"
#include "worker/ops/add_residual.h"
#include "worker/thread_pool.h"

namespace chorale::worker {

void Embedding::lookup(Step& step, std::span<const int32_t> ids, MatrixView out) const {
  CHECK_EQ(static_cast<int64_t>(ids.size()), out.rows);
  CHECK_EQ(out.cols, table_->shape[1]);
  for (int32_t id : ids) CHECK(id >= 0 && id < table_->shape[0]);
  step.op.pool.parallel_for(
      out.rows,
      [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; ++row)
          parallel::read_f32(*table_, ids[row], ids[row] + 1, 0, out.cols, out.row<float>(row), out.cols);
      },
      /*min_per_thread=*/16);
}

void Embedding::add_to(Step& step, std::span<const int32_t> ids, MatrixView out) const {
  const Workspace::Scope scope(step.op.scratch);
  const MatrixView rows = take_matrix(step.op, DType::kF32, out.rows, out.cols);
  lookup(step, ids, rows);
  add_residual(step.op, {.residual = out, .sum = rows, .bias = nullptr});
}

}  // namespace chorale::worker
