// Element-wise activation functions of ungated MLPs (GPT-2, BERT).
#pragma once

#include "parallel/model_config.h"
#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// kSilu: x / (1 + exp(-x)).  kRelu: max(x, 0).
/// kGeluTanh: x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3); equals 0.5 x (1 + tanh(u)) (arXiv:1606.08415).
/// kGelu: 0.5 x (1 + erf(x / sqrt(2))).
struct ActivationArgs {
  parallel::Activation function = parallel::Activation::kGeluTanh;
  MatrixView x;    // f32 [rows, n]
  MatrixView out;  // f32 | bf16 | (devices) f16 [rows, n]; may be x when f32
};
void activation(OpContext& ctx, const ActivationArgs& args);

}  // namespace chorale::worker
