#include "worker/weights/stage_weights.h"

#include "comm/base/error.h"

namespace chorale::worker {

const PackedWeight& StageWeights::matrix(parallel::Member member, int64_t layer) const {
  const auto found = matrices_.find({member, layer});
  CHECK(found != matrices_.end());
  return *found->second;
}

const float* StageWeights::find_vector(parallel::Member member, int64_t layer) const {
  const auto found = vectors_.find({member, layer});
  return found == vectors_.end() ? nullptr : found->second.as<float>();
}

const float* StageWeights::vector(parallel::Member member, int64_t layer) const {
  const float* values = find_vector(member, layer);
  CHECK(values != nullptr);
  return values;
}

const parallel::StoredTensor& StageWeights::lookup(parallel::Member member) const {
  const auto found = lookups_.find(member);
  CHECK(found != lookups_.end());
  return *found->second;
}

uint64_t StageWeights::weight_bytes() const {
  uint64_t bytes = 0;
  for (const auto& [key, weight] : matrices_) bytes += weight->data.view().size_bytes();
  for (const auto& [key, values] : vectors_) bytes += values.view().size_bytes();
  return bytes;
}

}  // namespace chorale::worker
