// The part of StageRunner that records its decode steps at start (worker/decode_graphs.h): between the rows' arrival
// and their leaving, with the logits of small batches. What depends on parameters of the sequences, sampling, comes
// after.
#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/progress.h"
#include "worker/runner.h"

namespace chorale::worker {
namespace {

constexpr int64_t kMostRows = 256;     // of a graph; larger steps keep a device busy enough
constexpr int64_t kMostBlocks = 2048;  // of a sequence: 32768 tokens; a step's block tables stay below 2 MiB
constexpr int64_t kMostLogitsRows = 32;

}  // namespace

// Partial sums must meet without the host.
bool StageRunner::can_capture() const {
  return where_ && (plan_.layout.tp == 1 || groups_.transports.group != nullptr);
}

void StageRunner::capture_graphs() {
  const auto start = Deadline::Clock::now();
  const bool is_first = plan_.layout.is_first_stage(rank_), is_last = plan_.layout.is_last_stage(rank_);
  const int64_t max_rows = std::min<int64_t>({plan_.max_num_seqs, plan_.max_num_batched_tokens, kMostRows});
  graphs_.emplace(
      op_, where_,
      DecodeGraphs::Limits{.max_rows = max_rows,
                           .max_blocks = std::min((plan_.max_model_len + kBlockTokens - 1) / kBlockTokens, kMostBlocks),
                           .hidden_size = plan_.config.hidden_size,
                           .logits_rows = is_last ? std::min(max_rows, kMostLogitsRows) : 0,
                           .vocab_size = plan_.config.vocab_size});
  std::optional<ProgressBar> bar;
  int64_t num_graphs = 0;
  try {
    graphs_->capture(
        [&](Step& step, const int32_t* sources, MatrixView hidden, MatrixView logits) {
          if (is_first) embed(step, sources, hidden);
          model_->forward(step, hidden);
          if (logits.rows > 0) collect_logits(step, hidden, logits);
        },
        [&](int64_t done, int64_t total) {
          if (!bar && rank_ == 0) bar.emplace("capturing CUDA graphs", total);
          if (bar) bar->update(done);
          num_graphs = total;
        });
  } catch (const Error& error) {
    fail(error.code(), "CUDA graphs of decode steps could not be captured (--no-cuda-graphs goes without): {}",
         error.what());
  }
  const std::chrono::duration<double> taken = Deadline::Clock::now() - start;
  log_info("captured {} CUDA graphs of decode steps of up to {} sequences in {:.2f} s", num_graphs, max_rows,
           taken.count());
}

}  // namespace chorale::worker
