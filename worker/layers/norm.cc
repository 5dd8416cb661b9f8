#include "worker/layers/norm.h"

#include "worker/ops/layer_norm.h"
#include "worker/ops/residual_norm.h"
#include "worker/ops/rms_norm.h"

namespace chorale::worker {

Norm::Norm(const StageParts& parts, parallel::Member member, parallel::Member bias, int64_t layer)
    : kind_(parts.config.norm),
      weight_(parts.weights.vector(member, layer)),
      bias_(parts.weights.find_vector(bias, layer)),
      eps_(static_cast<float>(parts.config.norm_eps)) {}

void Norm::forward(Step& step, MatrixView x, MatrixView out) const {
  if (kind_ == parallel::NormKind::kRms)
    rms_norm(step.op, {.x = x, .weight = weight_, .dim = x.cols, .eps = eps_, .out = out});
  else
    layer_norm(step.op, {.x = x, .weight = weight_, .bias = bias_, .eps = eps_, .out = out});
}

void Norm::add_and_forward(Step& step, MatrixView residual, MatrixView sum, const float* bias, MatrixView out) const {
  residual_norm(step.op, {.kind = kind_,
                          .residual = residual,
                          .sum = sum,
                          .sum_bias = bias,
                          .weight = weight_,
                          .bias = bias_,
                          .eps = eps_,
                          .out = out});
}

}  // namespace chorale::worker
