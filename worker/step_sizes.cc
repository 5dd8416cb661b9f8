#include "worker/step_sizes.h"

#include <algorithm>

#include "parallel/layout.h"
#include "worker/decode_graphs.h"

namespace chorale::worker {
namespace {
using parallel::kBlockTokens;

constexpr int64_t kMostRows = 256;     // of a graph; larger steps keep a device busy enough
constexpr int64_t kMostBlocks = 2048;  // of a sequence: 32768 tokens; a step's block tables stay below 2 MiB

constexpr size_t kMostBatchBytes = size_t{64} << 20;  // of pinned memory, times the segments of the ring
constexpr size_t kSamplingBytes = size_t{1} << 20;    // parameters of rows, biases, histories of a few sequences

int64_t max_blocks(const parallel::ClusterPlan& plan) { return (plan.max_model_len + kBlockTokens - 1) / kBlockTokens; }
}  // namespace

int64_t max_graph_rows(const parallel::ClusterPlan& plan) {
  return std::min<int64_t>({plan.max_num_seqs, plan.max_num_batched_tokens, kMostRows});
}

int64_t max_graph_blocks(const parallel::ClusterPlan& plan) { return std::min(max_blocks(plan), kMostBlocks); }

size_t max_staged_bytes(const parallel::ClusterPlan& plan) {
  const int64_t rows = plan.max_num_batched_tokens, chunks = std::min<int64_t>(rows, plan.max_num_seqs);
  // Ids, positions and slots of rows; three numbers of each chunk and its blocks (layers/step.h).
  const auto batch = static_cast<size_t>(3 * rows + chunks * (3 + max_blocks(plan)) + 2) * sizeof(int32_t);
  const size_t graph = DecodeGraphs::input_bytes(max_graph_rows(plan), max_graph_blocks(plan));
  return std::max(graph, std::min(batch, kMostBatchBytes)) + kSamplingBytes;
}

}  // namespace chorale::worker
