// Model: one rank's part of a Transformer, as a function of rows. The stage runner calls it; a model file in this
// folder makes one from the rank's weights. It knows no job, no plan and no other rank (the layers inside it meet their
// group).
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "comm/base/registry.h"
#include "worker/layers/parts.h"
#include "worker/layers/step.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

class Model {
 public:
  virtual ~Model() = default;
  /// First stage: hidden[i] = what the first layer reads for token ids[i] at the batch's position i; `ids` [num_tokens]
  /// lie where the kernels read them.
  virtual void embed(Step& step, const int32_t* ids, MatrixView hidden) = 0;  // f32 [num_tokens, hidden_size]
  /// This stage's layers, in place; K and V go to the cache.
  virtual void forward(Step& step, MatrixView hidden) = 0;  // f32 [num_tokens, hidden_size]
  /// Last stage: logits of some hidden rows, for the rank's slice of the vocabulary.
  virtual void logits(Step& step, MatrixView hidden,
                      MatrixView out) = 0;  // f32 [rows, hidden_size] -> [rows, local_vocab]
};

struct ModelEntry {
  std::string_view name;  // as in ArchitectureRegistry
  std::unique_ptr<Model> (*make)(const StageParts& parts);
};
using ModelRegistry = Registry<ModelEntry>;

/// Throws Error{kUnsupported}.
std::unique_ptr<Model> make_model(const StageParts& parts);

}  // namespace chorale::worker
