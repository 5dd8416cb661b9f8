// Looks up rows of a stored table: token embeddings, learned positions (N8: the embedding is not sharded). On the CPU
// rows are read from the checkpoint's mapping, so a rank touches only the rows it meets; a device holds a copy.
#pragma once

#include "worker/layers/parts.h"
#include "worker/layers/step.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

class Embedding {
 public:
  /// REQUIRES: the first stage.
  Embedding(const StageParts& parts, parallel::Member member);
  /// out[i] = table[ids[i]], as float32; `ids` [rows] lie where the kernels read them. REQUIRES: ids inside the table
  /// (checked on the CPU).
  void lookup(Step& step, const int32_t* ids, MatrixView out) const;  // f32 [rows, hidden]
  /// out[i] += table[ids[i]].
  void add_to(Step& step, const int32_t* ids, MatrixView out) const;

 private:
  const parallel::StoredTensor* table_;  // [num_ids, hidden]
  Tensor on_device_;                     // f32 | bf16 | f16 [num_ids, hidden]; empty on the CPU
};

}  // namespace chorale::worker
