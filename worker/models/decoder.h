// The decoder-only Transformer that Llama, Mistral, Qwen2 and Qwen3 are: embedding, pre-norm blocks, final norm,
// lm_head. What differs between them (biases, q and k norms, window, rope) follows from configuration and weight table;
// models that differ more derive.
#pragma once

#include <optional>
#include <vector>

#include "worker/layers/block.h"
#include "worker/layers/embedding.h"
#include "worker/layers/lm_head.h"
#include "worker/models/model.h"

namespace chorale::worker {

class Decoder : public Model {
 public:
  explicit Decoder(const StageParts& parts) {
    if (parts.is_first_stage()) embedding_.emplace(parts, parallel::Member::kEmbedding);
    const auto rope = make_rope(parts);
    for (int64_t layer = parts.layers().begin; layer < parts.layers().end; ++layer)
      blocks_.emplace_back(parts, layer, rope);
    if (parts.is_last_stage()) head_.emplace(parts);
  }

  void embed(Step& step, const int32_t* ids, MatrixView x) override { embedding_->lookup(step, ids, x); }
  void forward(Step& step, MatrixView x) override {
    for (const PreNormBlock& block : blocks_) block.forward(step, x);
  }
  void logits(Step& step, MatrixView x, MatrixView out) override { head_->forward(step, x, out); }

 private:
  std::optional<Embedding> embedding_;
  std::vector<PreNormBlock> blocks_;
  std::optional<LmHead> head_;
};

template <typename M>
std::unique_ptr<Model> make(const StageParts& parts) {
  return std::make_unique<M>(parts);
}

}  // namespace chorale::worker
