// Reads a rank's slices out of a checkpoint, through the architecture's weight table and the layout: dequantises,
// restores row order, transposes where the file is [in, out], rounds once to the compute type and packs into panels, on
// all threads. It touches no byte of the checkpoint that belongs to other ranks only.
#pragma once

#include <string_view>

#include "parallel/layout.h"
#include "parallel/numerics.h"
#include "worker/thread_pool.h"
#include "worker/weights/stage_weights.h"

namespace chorale::worker {

struct WeightLoadRequest {
  const parallel::ModelConfig& config;
  const parallel::Layout& layout;
  int rank = 0;  // in the world
  DType compute = DType::kF32;
  DeviceStream where = {};  // where the weights are wanted
  /// NumericsClass::gemm. Where it names a library, the 16-bit column-parallel weights that it can take lie in rows and
  /// know its algorithm.
  std::string_view gemm = "own";
  /// kFast: also wo and w_down, which then have one leaf each, whoever multiplies with them.
  parallel::Answer answer = parallel::Answer::kOne;
};

/// Logs progress for long loads. Throws Error{kNotFound | kCorrupt} naming the tensor, Error{kResourceExhausted}
/// without memory, what LibraryGemm::fit throws.
StageWeights load_weights(parallel::Checkpoint checkpoint, const WeightLoadRequest& request, ThreadPool& pool);

}  // namespace chorale::worker
