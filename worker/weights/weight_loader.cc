#include "worker/weights/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <mutex>
#include <optional>
#include <string>

#include "comm/base/error.h"
#include "comm/base/log.h"
#include "comm/base/progress.h"
#include "worker/ops/library_gemm.h"
#include "worker/thread_pool.h"
#include "worker/weights/device_upload.h"

namespace chorale::worker {
namespace {
using parallel::Member;
using parallel::ModelConfig;
using parallel::Orientation;
using parallel::Range;
using parallel::RowOrder;
using parallel::ShardKind;
using parallel::StoredTensor;
using parallel::WeightSpec;

constexpr std::chrono::minutes kUploadDeadline{10};
constexpr int64_t kRowsPerTask = 128;  // one panel: tasks pack disjoint panels where fused parts start on one

// The member whose matrix (or vector) holds this one's rows too.
Member home_of(const ModelConfig& config, Member member) {
  const bool is_gated = config.mlp == parallel::MlpKind::kGated;
  switch (member) {
    case Member::kWk:
    case Member::kWv: return Member::kWq;
    case Member::kWkBias:
    case Member::kWvBias: return Member::kWqBias;
    case Member::kWUp: return is_gated ? Member::kWGate : member;
    case Member::kWUpBias: return is_gated ? Member::kWGateBias : member;
    default: return member;
  }
}

// The bias of a column-parallel matrix, fused as that is; the matrix itself where there never is one.
Member bias_of(Member matrix) {
  switch (matrix) {
    case Member::kWq: return Member::kWqBias;
    case Member::kWGate: return Member::kWGateBias;
    case Member::kWUp: return Member::kWUpBias;
    default: return matrix;
  }
}

// Row of the stored tensor that holds row `row` of the weight: GGUF's Llama files interleave the halves of each head.
int64_t stored_row(RowOrder order, int64_t row, int64_t head_dim) {
  if (order == RowOrder::kPlain) return row;
  const int64_t head = row / head_dim, i = row % head_dim, half = head_dim / 2;
  return head * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

}  // namespace

// One load. The tables are built first, on the calling thread; then all threads take rows to pack from one list.
class WeightLoader {
 public:
  WeightLoader(parallel::Checkpoint checkpoint, const WeightLoadRequest& request)
      : request_(request),
        tp_index_(request.layout.tp_index_of(request.rank)),
        weights_(std::move(checkpoint)),
        is_gguf_(weights_.checkpoint_.gguf() != nullptr) {}

  StageWeights load(ThreadPool& pool) {
    const auto start = std::chrono::steady_clock::now();
    for (const WeightSpec& spec : parallel::architecture_of(request_.config).weights(request_.config)) plan(spec);
    if (request_.where) {
      load_to_device(pool);
    } else {
      for (auto& [key, parts] : groups_) make(key, parts);
      pack_all(pool);
    }
    fit_library();
    weights_.copied_bytes_ = copied_bytes_;
    weights_.load_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(weights_);
  }

 private:
  struct Part {  // one stored tensor's slice, and where its rows go in the (fused) weight
    const StoredTensor* tensor = nullptr;
    WeightSpec spec;
    Range rows, columns;    // of the weight [out, in]
    int64_t first_row = 0;  // of the fused weight
  };
  struct Task {
    PackedWeight* weight = nullptr;
    const Part* part = nullptr;
    int64_t begin = 0, end = 0;  // rows within the part
  };

  void plan(const WeightSpec& spec) {
    const Range layers = request_.layout.stage_layers[request_.layout.stage_of(request_.rank)];
    if (parallel::is_layer_member(spec.member)) {
      for (int64_t layer = layers.begin; layer < layers.end; ++layer) add(spec, layer);
    } else if (spec.shard == ShardKind::kLookup) {
      if (request_.layout.is_first_stage(request_.rank))
        if (const StoredTensor* tensor = find(spec, 0)) weights_.lookups_[spec.member] = tensor;
    } else if (request_.layout.is_last_stage(request_.rank)) {
      add(spec, 0);
    }
  }

  const StoredTensor* find(const WeightSpec& spec, int64_t layer) const {
    return parallel::find_weight(weights_.checkpoint_, request_.config, spec, static_cast<int>(layer));
  }

  void add(const WeightSpec& spec, int64_t layer) {
    const StoredTensor* tensor = find(spec, layer);
    if (tensor == nullptr) return;
    const auto slice = parallel::slice_of(request_.config, request_.layout, spec.member, spec.shard, tp_index_);
    groups_[{home_of(request_.config, spec.member), layer}].push_back({tensor, spec, slice.rows, slice.columns});
  }

  void make(const StageWeights::Key& key, std::vector<Part>& parts) {
    std::ranges::sort(parts, {}, [](const Part& part) { return part.spec.member; });
    int64_t num_rows = 0;
    for (Part& part : parts) {
      part.first_row = num_rows;
      num_rows += part.rows.size();
    }
    if (parallel::expected_shape(request_.config, key.first).num_dims() == 1) {
      Tensor& values = weights_.vectors_[key] = Tensor(DType::kF32, {num_rows});
      for (const Part& part : parts) read_vector(part, values.as<float>() + part.first_row);
      return;
    }
    auto weight = std::make_unique<PackedWeight>(
        make_packed_weight(request_.compute, num_rows, parts.front().columns.size(), leaf_begin(parts.front()),
                           first_leaf(parts.front()), order_of(key, parts)));
    for (const Part& part : parts)
      for (int64_t begin = 0; begin < part.rows.size(); begin += kRowsPerTask)
        tasks_.push_back({weight.get(), &part, begin, std::min(begin + kRowsPerTask, part.rows.size())});
    weights_.matrices_[key] = std::move(weight);
  }

  // A library takes weights of one leaf without a bias whose rows it can load in whole 16-byte words. Decided by what
  // all ranks know, so that they choose alike; a fast answer's rows may be of any shard.
  WeightOrder order_of(const StageWeights::Key& key, const std::vector<Part>& parts) const {
    constexpr int64_t kMultiple = 16;
    const WeightOrder own = weight_order(request_.where.kind(), request_.compute);
    if (request_.gemm == "own" || own != WeightOrder::kFragments || !leaf_begin(parts.front()).empty()) return own;
    if (groups_.contains({bias_of(key.first), key.second}) && bias_of(key.first) != key.first) return own;
    for (const Part& part : parts) {
      const Shape shape = parallel::expected_shape(request_.config, part.spec.member);
      if (shape[0] % kMultiple != 0 || shape[1] % kMultiple != 0 || part.columns.size() % kMultiple != 0) return own;
    }
    return WeightOrder::kRowMajor;
  }

  // Once for each shape: one algorithm serves all weights that have it.
  void fit_library() {
    std::map<std::pair<int64_t, int64_t>, std::shared_ptr<const LibraryGemm>> fitted;
    for (auto& [key, weight] : weights_.matrices_) {
      if (weight->order != WeightOrder::kRowMajor || weight->n == 0) continue;
      auto& library = fitted[{weight->n, weight->k}];
      if (library == nullptr) library = fit_library_gemm(request_.gemm, request_.answer, request_.where, *weight);
      weight->library = library;
    }
  }

  // Where the leaves of a row-parallel weight start among its local columns (N2); empty: columns are not cut.
  std::vector<int64_t> leaf_begin(const Part& part) const {
    const bool is_wo = part.spec.shard == ShardKind::kHeadColumns;
    if (!is_wo && part.spec.shard != ShardKind::kMlpColumns) return {};
    if (request_.answer == parallel::Answer::kFast) return {};
    const auto run = is_wo ? request_.layout.attention_leaves[tp_index_] : request_.layout.mlp_leaves[tp_index_];
    std::vector<int64_t> begin{0};
    for (int leaf = run.begin; leaf < run.end; ++leaf) {
      const int64_t columns =
          is_wo ? parallel::heads_of(request_.config, {leaf, leaf + 1}).size() * request_.config.head_dim
                : parallel::mlp_columns_of(request_.config, {leaf, leaf + 1}).size();
      begin.push_back(begin.back() + columns);
    }
    return begin;
  }

  int first_leaf(const Part& part) const {
    if (request_.answer == parallel::Answer::kFast) return 0;
    if (part.spec.shard == ShardKind::kHeadColumns) return request_.layout.attention_leaves[tp_index_].begin;
    if (part.spec.shard == ShardKind::kMlpColumns) return request_.layout.mlp_leaves[tp_index_].begin;
    return 0;
  }

  RowOrder row_order(const Part& part) const { return is_gguf_ ? part.spec.gguf_row_order : RowOrder::kPlain; }

  // First stored output row (or column) of this weight's part of a fused tensor.
  int64_t part_offset(const Part& part) const {
    return part.spec.part * parallel::expected_shape(request_.config, part.spec.member)[0];
  }

  void read_vector(const Part& part, float* out) {
    const int64_t offset = part_offset(part);
    if (row_order(part) == RowOrder::kPlain) {
      copied_bytes_ += parallel::read_f32(*part.tensor, 0, 1, offset + part.rows.begin, offset + part.rows.end, out,
                                          part.rows.size());
      return;
    }
    for (int64_t row = part.rows.begin; row < part.rows.end; ++row) {
      const int64_t from = offset + stored_row(row_order(part), row, request_.config.head_dim);
      copied_bytes_ += parallel::read_f32(*part.tensor, 0, 1, from, from + 1, out + (row - part.rows.begin), 1);
    }
  }

  void pack_all(ThreadPool& pool) {
    std::atomic<size_t> next{0}, done{0};
    std::atomic<bool> has_failed{false};
    std::exception_ptr failure;
    std::mutex mutex;  // guards failure
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int thread) {
      std::vector<float> rows, transposed;
      int last_percent = 0;
      try {
        for (size_t i = next++; i < tasks_.size() && !has_failed; i = next++) {
          copied_bytes_ += pack(tasks_[i], rows, transposed);
          const auto percent = static_cast<int>(++done * 100 / tasks_.size());
          const bool is_long = std::chrono::steady_clock::now() - start > std::chrono::seconds(2);
          if (thread == 0 && is_long && percent >= last_percent + 10) {
            log_info("loading weights: {} %", percent);
            last_percent = percent;
          }
        }
      } catch (...) {  // ThreadPool's functions must not throw; the first error is thrown again below
        const std::lock_guard lock(mutex);
        if (!has_failed.exchange(true)) failure = std::current_exception();
      }
    });
    if (failure) std::rethrow_exception(failure);
  }

  // One tensor after the other: the host holds one at a time.
  void load_to_device(ThreadPool& pool) {
    const auto start = std::chrono::steady_clock::now();
    const auto seconds = [start] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    const Deadline deadline = Deadline::after(kUploadDeadline);
    DeviceUpload upload(request_.where);
    const auto move = [&](Tensor& tensor) {
      Tensor moved(*request_.where.device, tensor.view().dtype, tensor.shape());
      upload.copy(moved.view().data, tensor.view().data, tensor.view().size_bytes(), deadline);
      tensor = std::move(moved);
    };
    std::optional<ProgressBar> bar;  // of one rank for all
    if (request_.rank == 0) bar.emplace("loading weights to the device", static_cast<int64_t>(groups_.size()));
    int64_t num_done = 0;
    for (auto& [key, parts] : groups_) {
      make(key, parts);
      pack_all(pool);
      tasks_.clear();
      if (const auto matrix = weights_.matrices_.find(key); matrix != weights_.matrices_.end())
        move(matrix->second->data);
      else
        move(weights_.vectors_.at(key));
      ++num_done;
      if (bar)
        bar->update(num_done, fmt::format("{:.1f} GB/s", static_cast<double>(upload.num_bytes()) / seconds() / 1e9));
    }
    upload.finish(deadline);
    log_info("{:.0f} MiB of weights are on the device after {:.2f} s ({:.2f} GB/s, packing included)",
             static_cast<double>(upload.num_bytes()) / (1 << 20), seconds(),
             static_cast<double>(upload.num_bytes()) / seconds() / 1e9);
  }

  // Reads rows of the part as float32 [rows, columns] and packs them. Returns the bytes of the file it touched.
  uint64_t pack(const Task& task, std::vector<float>& rows, std::vector<float>& transposed) const {
    const Part& part = *task.part;
    const int64_t num_rows = task.end - task.begin, num_columns = part.columns.size();
    rows.resize(static_cast<size_t>(num_rows * num_columns));
    const int64_t first = part_offset(part) + part.rows.begin + task.begin;
    uint64_t bytes = 0;
    if (part.spec.hf_orientation == Orientation::kInOut && !is_gguf_) {
      transposed.resize(rows.size());
      bytes = parallel::read_f32(*part.tensor, part.columns.begin, part.columns.end, first, first + num_rows,
                                 transposed.data(), num_rows);
      for (int64_t c = 0; c < num_columns; ++c)
        for (int64_t r = 0; r < num_rows; ++r) rows[r * num_columns + c] = transposed[c * num_rows + r];
    } else if (row_order(part) == RowOrder::kPlain) {
      bytes = parallel::read_f32(*part.tensor, first, first + num_rows, part.columns.begin, part.columns.end,
                                 rows.data(), num_columns);
    } else {
      for (int64_t r = 0; r < num_rows; ++r) {
        const int64_t from = stored_row(row_order(part), first + r, request_.config.head_dim);
        bytes += parallel::read_f32(*part.tensor, from, from + 1, part.columns.begin, part.columns.end,
                                    rows.data() + r * num_columns, num_columns);
      }
    }
    pack_rows(*task.weight, part.first_row + task.begin, num_rows, rows.data());
    return bytes;
  }

  const WeightLoadRequest& request_;
  const int tp_index_;
  StageWeights weights_;
  const bool is_gguf_;
  std::map<StageWeights::Key, std::vector<Part>> groups_;
  std::vector<Task> tasks_;
  std::atomic<uint64_t> copied_bytes_{0};
};

StageWeights load_weights(parallel::Checkpoint checkpoint, const WeightLoadRequest& request, ThreadPool& pool) {
  return WeightLoader(std::move(checkpoint), request).load(pool);
}

}  // namespace chorale::worker
