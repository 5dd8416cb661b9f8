// The pre-norm decoder block that GPT-2, Llama and most after them share: x += attention(norm(x)); x += mlp(norm(x)).
// Which norm, biases, positions and activation follows from the configuration and from the weights that were loaded.
#pragma once

#include "worker/layers/attention.h"
#include "worker/layers/mlp.h"
#include "worker/layers/norm.h"

namespace chorale::worker {

class PreNormBlock {
 public:
  PreNormBlock(const StageParts& parts, int64_t layer, const std::shared_ptr<const RopeTable>& rope)
      : compute_(parts.compute),
        attn_norm_(parts, parallel::Member::kAttnNorm, parallel::Member::kAttnNormBias, layer),
        attention_(parts, layer, rope),
        ffn_norm_(parts, parallel::Member::kFfnNorm, parallel::Member::kFfnNormBias, layer),
        mlp_(parts, layer) {}

  void forward(Step& step, MatrixView x) const {  // f32 [num_tokens, hidden], in place
    const Workspace::Scope scope(step.op.scratch);
    const MatrixView normed = take_matrix(step.op, compute_, x.rows, x.cols);
    attn_norm_.forward(step, x, normed);
    attention_.add_to(step, normed, x, ffn_norm_, normed);
    mlp_.add_to(step, normed, x);
  }

 private:
  DType compute_;
  Norm attn_norm_;
  Attention attention_;
  Norm ffn_norm_;
  Mlp mlp_;
};

}  // namespace chorale::worker
