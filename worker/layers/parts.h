// What layers are built from: the model's configuration, this rank's place in the layout, its weights, its KV cache and
// its group. Made once by the stage runner; layers keep what they need and not the parts.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "parallel/layout.h"
#include "parallel/numerics.h"
#include "worker/kv/kv_cache.h"
#include "worker/ops/rope.h"
#include "worker/weights/stage_weights.h"

namespace chorale::worker {

struct StageParts {
  const parallel::ModelConfig& config;
  const parallel::Layout& layout;
  int rank = 0;  // in the world
  DType compute = DType::kF32;
  int64_t max_model_len = 0;  // rows of the rope table
  const StageWeights& weights;
  KvCache& kv;
  comm::Communicator& group;  // the tensor-parallel ranks of this stage; takes memory of the device
  DeviceStream where = {};    // where weights and cache are
  parallel::Answer answer = parallel::Answer::kOne;  // as the weights were loaded for

  int tp_index() const { return layout.tp_index_of(rank); }
  parallel::Range layers() const { return layout.stage_layers[layout.stage_of(rank)]; }
  bool is_first_stage() const { return layout.is_first_stage(rank); }
  bool is_last_stage() const { return layout.is_last_stage(rank); }
};

}  // namespace chorale::worker
