// Graphs of decode steps: all that a stage computes between its rows' arrival and their leaving, recorded once for each
// number of rows (1, 2, 4, ...), so that a step costs the host one copy and one launch. The stage runner makes it at
// start and replays it for steps whose chunks have one token each; other steps are given to the device kernel by
// kernel, with the same bits.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "worker/kv/kv_cache.h"
#include "worker/layers/step.h"
#include "worker/ops/matrix_view.h"

namespace chorale::worker {

/// Thread: the rank's compute thread. What was captured names addresses: the memory that the body takes from scratch
/// and the layers' own must stay where it is as long as this lives.
class DecodeGraphs {
 public:
  struct Limits {
    int64_t max_rows = 0;     // of the largest graph
    int64_t max_blocks = 0;   // of a sequence in a graph's batch
    int64_t hidden_size = 0;  //
    int64_t logits_rows = 0;  // graphs of at most so many rows also compute logits; 0: none do
    int64_t vocab_size = 0;   // columns of the logits
  };
  /// What a stage computes. `sources` [rows]: of token ids (worker/ops/token_ids.h). `logits` [rows, vocab_size] is
  /// empty in graphs that compute none.
  using Body = std::function<void(Step& step, const int32_t* sources, MatrixView hidden, MatrixView logits)>;

  /// Of a graph of so many rows: what load() copies at most.
  static size_t input_bytes(int64_t rows, int64_t max_blocks) {
    return static_cast<size_t>(layout_of(rows, max_blocks).end) * sizeof(int32_t);
  }

  /// Memory for the inputs and outputs of all graphs; nothing is captured yet.
  DecodeGraphs(OpContext& op, const DeviceStream& where, const Limits& limits);

  /// Runs the body once for each number of rows, without effect on any sequence, so that the device has loaded all
  /// kernels and scratch has grown. Collective where the body is: an error is that of a step.
  void rehearse(const Body& body, Deadline deadline);
  /// Captures the body for each number of rows: the device does nothing, and no rank waits for another. `progress` is
  /// called after each with what is done and what there is. After an error this is of no use any more.
  void capture(const Body& body, const std::function<void(int64_t done, int64_t total)>& progress, Deadline deadline);

  /// Whether a graph can run the batch: one row a chunk, and no more of anything than it was made for.
  bool takes(const Batch& batch) const;

  /// The inputs of a step go to the device; what was captured for them follows in launch(). REQUIRES: takes(batch);
  /// `sources` has a value for each row, or none (not the first stage).
  struct Ready {
    Graph& graph;
    MatrixView hidden;  // f32 [rows of the batch, hidden_size], where the graph reads and writes
    MatrixView logits;  // f32 [rows of the batch, vocab_size] that it writes; empty: it does not
  };
  Ready load(const Batch& batch, const std::vector<int32_t>& sources);

 private:
  // Where the arrays of a graph's batch lie in inputs_; the block table, of which only the rows in use travel, is last.
  struct Layout {
    int64_t sources, positions, slots, query_start, context_len, split_start, block_table, end;
  };
  struct Bucket {
    int64_t rows = 0;
    Layout at;
    std::unique_ptr<Graph> graph;
  };
  static Layout layout_of(int64_t rows, int64_t max_blocks);
  const Bucket& bucket_for(int64_t rows) const;
  int32_t* input(int64_t offset) const { return inputs_.as<int32_t>() + offset; }
  MatrixView hidden(int64_t rows) const;
  MatrixView logits(const Bucket& bucket, int64_t rows) const;
  std::vector<int32_t> packed(const Bucket& bucket, const Batch& batch, const std::vector<int32_t>& sources) const;
  void run_body(const Bucket& bucket, const Body& body, Deadline deadline);

  OpContext& op_;
  Stream& stream_;
  const Limits limits_;
  std::vector<Bucket> buckets_;  // ascending
  Tensor inputs_;                // i32, of the largest bucket
  Tensor hidden_;                // f32 [max_rows, hidden_size]
  Tensor logits_;                // f32 [logits_rows, vocab_size]
};

}  // namespace chorale::worker
