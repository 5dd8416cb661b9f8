#include "worker/layers/linear.h"

#include <algorithm>

#include "worker/ops/add_residual.h"
#include "worker/ops/linear.h"

namespace chorale::worker {

MatrixView take_matrix(OpContext& op, DType dtype, int64_t rows, int64_t cols) {
  return {op.scratch.take_bytes(static_cast<size_t>(rows * cols) * size_of(dtype)), dtype, rows, cols, cols, op.device};
}

void ColumnParallelLinear::forward(Step& step, MatrixView x, MatrixView out) const {
  linear(step.op, {.x = x, .weight = weight_, .bias = bias_, .out = out, .nodes = {}});
}

namespace {
std::vector<comm::LeafRange> one_leaf_each(int num_ranks) {
  std::vector<comm::LeafRange> runs;
  for (int rank = 0; rank < num_ranks; ++rank) runs.push_back({rank, rank + 1});
  return runs;
}
}  // namespace

RowParallelLinear::RowParallelLinear(const PackedWeight& weight, const float* bias,
                                     const std::vector<comm::LeafRange>& runs, comm::Communicator& group,
                                     parallel::Answer answer)
    : weight_(&weight),
      bias_(bias),
      schedule_(answer == parallel::Answer::kOne ? comm::make_tree_schedule(runs.back().end, runs)
                                                 : comm::make_tree_schedule(group.size(), one_leaf_each(group.size()))),
      group_(group) {
  CHECK_EQ(static_cast<int>(runs.size()), group.size());
  if (answer == parallel::Answer::kOne)
    nodes_.assign(schedule_.nodes.begin() + schedule_.first_node[group.rank()],
                  schedule_.nodes.begin() + schedule_.first_node[group.rank() + 1]);
}

void RowParallelLinear::add_to(Step& step, MatrixView x, MatrixView residual, const Norm* next,
                               MatrixView normed) const {
  const Workspace::Scope scope(step.op.scratch);
  const auto num_nodes = std::max<int64_t>(1, static_cast<int64_t>(nodes_.size()));
  const MatrixView partials = take_matrix(step.op, DType::kF32, num_nodes * x.rows, weight_->n);
  linear(step.op, {.x = x, .weight = weight_, .bias = nullptr, .out = partials, .nodes = nodes_});
  const size_t count = static_cast<size_t>(x.rows * weight_->n);
  auto* sum = static_cast<float*>(partials.data);
  if (group_.size() > 1) {
    const Stopwatch watch(step, TimeKind::kComm);
    group_.tree_all_reduce(schedule_, {sum, count * static_cast<size_t>(num_nodes)}, {sum, count}, step.deadline);
  }
  const MatrixView root = partials.row_range(0, x.rows);
  if (next != nullptr)
    next->add_and_forward(step, residual, root, bias_, normed);
  else
    add_residual(step.op, {.residual = residual, .sum = root, .bias = bias_});
}

}  // namespace chorale::worker
