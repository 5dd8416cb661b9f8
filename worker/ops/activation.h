// Element-wise activation functions of ungated MLPs (GPT-2, BERT).
#pragma once

#include <string_view>

#include "worker/ops/context.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

enum class Activation {
  kGeluTanh,  // x / (1 + exp(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3): equals 0.5 x (1 + tanh(u)) (arXiv:1606.08415)
  kGeluErf,   // 0.5 x (1 + erf(x / sqrt(2)))
  kRelu,
  kSilu
};
std::string_view to_string(Activation activation);
/// Accepts Hugging Face names: "gelu_new" and "gelu_pytorch_tanh" (tanh), "gelu" (erf), "relu", "silu", "swish".
/// Throws Error{kUnsupported} that lists them.
Activation activation_from_string(std::string_view name);

struct ActivationArgs {
  Activation function = Activation::kGeluTanh;
  MatrixView x;    // f32 [rows, n]
  MatrixView out;  // f32 | bf16 [rows, n]; may be x when f32
};
void activation(OpContext& ctx, const ActivationArgs& args);

}  // namespace chorale::worker
