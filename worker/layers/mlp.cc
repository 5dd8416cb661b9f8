#include "worker/layers/mlp.h"

#include "worker/ops/silu_mul.h"

namespace chorale::worker {
namespace {
using parallel::Member;
using parallel::MlpKind;

Member first_weight(MlpKind kind) { return kind == MlpKind::kGated ? Member::kWGate : Member::kWUp; }
Member first_bias(MlpKind kind) { return kind == MlpKind::kGated ? Member::kWGateBias : Member::kWUpBias; }

}  // namespace

Mlp::Mlp(const StageParts& parts, int64_t layer)
    : kind_(parts.config.mlp),
      activation_(parts.config.activation),
      compute_(parts.compute),
      up_(parts.weights.matrix(first_weight(kind_), layer), parts.weights.find_vector(first_bias(kind_), layer)),
      down_(parts.weights.matrix(Member::kWDown, layer), parts.weights.find_vector(Member::kWDownBias, layer),
            parts.layout.mlp_leaves, parts.group, parts.answer) {
  // A gated MLP multiplies silu(gate) by up; the model files refuse other activations there.
  CHECK(kind_ == MlpKind::kPlain || parts.config.activation == parallel::Activation::kSilu);
}

void Mlp::add_to(Step& step, MatrixView x, MatrixView residual) const {
  const Workspace::Scope scope(step.op.scratch);
  const MatrixView up = take_matrix(step.op, DType::kF32, x.rows, up_.num_outputs());
  up_.forward(step, x, up);
  const int64_t columns = kind_ == MlpKind::kGated ? up.cols / 2 : up.cols;
  const MatrixView inner = take_matrix(step.op, compute_, x.rows, columns);
  if (kind_ == MlpKind::kGated)
    silu_mul(step.op, {.gate = up.columns(0, columns), .up = up.columns(columns, 2 * columns), .out = inner});
  else
    activation(step.op, {.function = activation_, .x = up, .out = inner});
  down_.add_to(step, inner, residual);
}

}  // namespace chorale::worker
