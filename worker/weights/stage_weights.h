// The weights of one rank: its slices of its stage's layers, packed for the kernels, and nothing else; in the memory of
// its device. Filled once by the loader, read by the layers' constructors. Embeddings stay in the checkpoint's mapping.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/architecture.h"
#include "parallel/checkpoint/checkpoint.h"
#include "worker/ops/packed_weight.h"

namespace chorale::worker {

/// wq, wk and wv are one matrix [q + k + v, hidden] under kWq, w_gate and w_up one matrix [gate + up, hidden] under
/// kWGate; their biases likewise. Fusing changes no output's chain (N4) and saves reading the input again.
class StageWeights {
 public:
  explicit StageWeights(parallel::Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)) {}

  /// CHECKs that the loader made it. `layer` is the model's number; 0 for weights outside layers.
  const PackedWeight& matrix(parallel::Member member, int64_t layer = 0) const;
  const float* vector(parallel::Member member, int64_t layer = 0) const;  // where the kernels read it
  /// nullptr where the model has no such vector.
  const float* find_vector(parallel::Member member, int64_t layer = 0) const;
  /// The stored table of an embedding; first stage only.
  const parallel::StoredTensor& lookup(parallel::Member member) const;

  uint64_t weight_bytes() const;                           // kept in memory, panels' padding included
  uint64_t copied_bytes() const { return copied_bytes_; }  // read out of the checkpoint
  double load_seconds() const { return load_seconds_; }

 private:
  friend class WeightLoader;
  using Key = std::pair<parallel::Member, int64_t>;
  parallel::Checkpoint checkpoint_;  // keeps the mapping alive
  std::map<Key, std::unique_ptr<PackedWeight>> matrices_;
  std::map<Key, Tensor> vectors_;  // f32
  std::map<parallel::Member, const parallel::StoredTensor*> lookups_;
  uint64_t copied_bytes_ = 0;
  double load_seconds_ = 0;
};

}  // namespace chorale::worker
