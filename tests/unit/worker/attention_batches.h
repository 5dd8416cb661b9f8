// Batches for tests of attention on devices: texts laid into a cache full of NaN, on the host for the scalar kernel and
// in the device's memory, and the models that the kernels on tensor cores are for.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/unit/worker/attention_reference.h"
#include "tests/unit/worker/device_cache.h"
#include "worker/ops/attention.h"

namespace chorale::worker {

/// A chunk that pads a batch: a row of NaN in a sequence without context.
constexpr Chunk kPadding{-1, 0, 0};

/// What a batch has at least, so that batches of other lengths have the same shapes.
struct Room {
  int stride = 1, num_blocks = 0;
};

/// A batch on the host: every chunk has blocks of its own, shuffled by `seed`, in a cache full of NaN.
struct Batch {
  Batch(const Model& m, const std::vector<Chunk>& chunks, uint32_t seed, DType dtype, KvOrder order, Room room = {})
      : model(m), shape{dtype, order, m.num_kv_heads(), m.head_dim}, stride(room.stride) {
    int num_blocks = 3;
    for (const Chunk& c : chunks) num_blocks += blocks_of(c), stride = std::max(stride, blocks_of(c));
    num_blocks = std::max(num_blocks, room.num_blocks);
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::minstd_rand(seed));
    k = shape.keys(num_blocks), v = shape.values(num_blocks);
    std::memset(k.view().data, 0xff, k.view().size_bytes());
    std::memset(v.view().data, 0xff, v.view().size_bytes());
    table.assign(chunks.size() * static_cast<size_t>(stride), -1);
    const int kv_width = m.num_kv_heads() * m.head_dim, q_width = m.num_heads() * m.head_dim;
    for (size_t s = 0; s < chunks.size(); ++s) {
      const Chunk& c = chunks[s];
      if (c.text < 0) {
        q.insert(q.end(), static_cast<size_t>(q_width), NAN);
        query_start.push_back(query_start.back() + 1);
        context_len.push_back(0);
        continue;
      }
      const Text text(m, c.text, c.end);
      int32_t* blocks = table.data() + static_cast<int64_t>(s) * stride;
      for (int b = 0; b < blocks_of(c); ++b) blocks[b] = ids.back(), ids.pop_back();
      for (int p = 0; p < c.end; ++p) {
        const int32_t slot = blocks[p / kBlockTokens] * kBlockTokens + p % kBlockTokens;
        std::vector<float> key(static_cast<size_t>(kv_width)), value = key;
        for (int i = 0; i < kv_width; ++i) {
          const auto column = static_cast<size_t>(i), element = static_cast<size_t>(p * kv_width + i);
          key[column] = rounded(text.k[element], m.cache);
          value[column] = rounded(text.v[element], m.cache);
        }
        shape.write(k, v, slot, key.data(), value.data());
      }
      q.insert(q.end(), text.q.begin() + int64_t{c.begin} * q_width, text.q.begin() + int64_t{c.end} * q_width);
      query_start.push_back(query_start.back() + c.end - c.begin);
      context_len.push_back(c.end);
    }
    split_start = split_starts(context_len);
  }
  static int blocks_of(const Chunk& c) { return (c.end + kBlockTokens - 1) / kBlockTokens; }
  int64_t rows() const { return query_start.back(); }
  int64_t width() const { return int64_t{model.num_heads()} * model.head_dim; }

  /// Pointers are filled in by the caller.
  AttentionArgs args() const {
    AttentionArgs args;
    args.num_heads = model.num_heads();
    args.num_sequences = static_cast<int>(context_len.size());
    args.block_table_stride = stride;
    args.scale = model.scale();
    args.softcap = model.softcap;
    args.window = model.window;
    args.mask = model.mask;
    args.max_splits = split_start.back();
    for (size_t s = 0; s < context_len.size(); ++s)
      args.max_query_len = std::max(args.max_query_len, query_start[s + 1] - query_start[s]);
    return args;
  }

  Model model;
  CacheShape shape;
  Tensor k, v;
  std::vector<float> q;
  std::vector<int32_t> query_start{0}, context_len, split_start, table;
  int stride;
};

/// The scalar CPU kernel's answer: float32 cache unless bf16, whose rounded values are the same numbers.
inline Tensor on_cpu(TestDevice& device, const Model& model, const std::vector<Chunk>& chunks) {
  const Batch batch(model, chunks, 5, model.cache == DType::kBF16 ? DType::kBF16 : DType::kF32, KvOrder::kVectors);
  Tensor out(model.out, {batch.rows(), batch.width()});
  AttentionArgs args = batch.args();
  args.q = MatrixView(const_cast<float*>(batch.q.data()), DType::kF32, batch.rows(), batch.width(), batch.width());
  args.cache = batch.shape.layer(batch.k, batch.v);
  args.kv_head_of = batch.model.kv_head_of.data();
  args.query_start = batch.query_start.data();
  args.context_len = batch.context_len.data();
  args.block_table = batch.table.data();
  args.out = out;
  launch_scalar(device.cpu(), args);
  return out;
}

/// A batch in the device's memory. q is the middle of wider rows.
class DeviceBatch {
 public:
  DeviceBatch(TestDevice& device, const Model& model, const std::vector<Chunk>& chunks, uint32_t seed = 1,
              Room room = {})
      : device_(device),
        batch_(model, chunks, seed, model.cache, model.order, room),
        k_(device.upload(batch_.k)),
        v_(device.upload(batch_.v)),
        kv_head_of_(device.upload(batch_.model.kv_head_of)),
        query_start_(device.upload(batch_.query_start)),
        context_len_(device.upload(batch_.context_len)),
        split_start_(device.upload(batch_.split_start)),
        table_(device.upload(batch_.table)) {
    q_ = device.upload(wide_q(batch_));
    args_ = batch_.args();
    const int64_t width = batch_.width(), stride = width + 5;
    args_.q = MatrixView(q_.view().data, DType::kF32, batch_.rows(), stride, stride, device.ctx().device)
                  .columns(3, 3 + width);
    args_.cache = batch_.shape.layer(k_, v_);
    args_.kv_head_of = kv_head_of_.as<int32_t>();
    args_.query_start = query_start_.as<int32_t>();
    args_.context_len = context_len_.as<int32_t>();
    args_.split_start = split_start_.as<int32_t>();
    args_.block_table = table_.as<int32_t>();
  }
  const AttentionArgs& args() const { return args_; }
  AttentionArgs& args() { return args_; }
  Room room() const { return {batch_.stride, static_cast<int>(batch_.k.shape()[0])}; }
  /// Other contents in the same memory. The shapes must be the same.
  void refill(const std::vector<Chunk>& chunks, uint32_t seed) {
    const Batch other(batch_.model, chunks, seed, batch_.shape.dtype, batch_.shape.order, room());
    copy(k_, other.k.view().data, other.k.view().size_bytes());
    copy(v_, other.v.view().data, other.v.view().size_bytes());
    const std::vector<float> q = wide_q(other);
    copy(q_, q.data(), q.size() * sizeof(float));
    for (const auto& [to, from] : {std::pair(&query_start_, &other.query_start),
                                   {&context_len_, &other.context_len},
                                   {&split_start_, &other.split_start},
                                   {&table_, &other.table}})
      copy(*to, from->data(), from->size() * sizeof(int32_t));
  }
  Tensor run(const Kernel<AttentionArgs>& kernel) {
    poison_scratch();
    Tensor host(batch_.model.out, {batch_.rows(), batch_.width()});
    std::memset(host.view().data, 0xff, host.view().size_bytes());
    const Tensor out = device_.upload(host);
    args_.out = out;
    kernel.launch(device_.ctx(), args_);
    return device_.download(out);
  }

 private:
  static std::vector<float> wide_q(const Batch& batch) {
    const int64_t width = batch.width(), stride = width + 5;
    std::vector<float> wide(static_cast<size_t>(batch.rows() * stride), NAN);
    for (int64_t row = 0; row < batch.rows(); ++row)
      std::copy_n(batch.q.begin() + row * width, width, wide.begin() + row * stride + 3);
    return wide;
  }
  void copy(Tensor& to, const void* from, size_t bytes) {
    CHECK_EQ(to.view().size_bytes(), bytes);
    device_.stream().copy(to.view().data, from, bytes, CopyKind::kHostToDevice);
    device_.stream().synchronize(Deadline::after(std::chrono::seconds(60)));
  }
  void poison_scratch() {
    const Workspace::Scope scope(device_.ctx().scratch);
    const Tensor nans(DType::kU8, {1 << 20});
    std::memset(nans.view().data, 0xff, nans.view().size_bytes());
    for (int i = 0; i < 3; ++i)
      device_.stream().copy(device_.ctx().scratch.take_bytes(1 << 20), nans.view().data, 1 << 20,
                            CopyKind::kHostToDevice);
    device_.stream().synchronize(Deadline::after(std::chrono::seconds(60)));
  }
  TestDevice& device_;
  Batch batch_;
  Tensor k_, v_, kv_head_of_, query_start_, context_len_, split_start_, table_, q_;
  AttentionArgs args_;
};

inline const Kernel<AttentionArgs>* find_kernel(TestDevice& device, std::string_view name) {
  for (const Kernel<AttentionArgs>& kernel : KernelTable<AttentionArgs>::all())
    if (kernel.device == device.ctx().device && kernel.name == name) return &kernel;
  return nullptr;
}

/// Models of the tensor core kernels: every head_dim and type, groups of 1 to 20 heads, also uneven ones,
/// and KV heads that no query head reads.
enum class Types { kOne, kBoth };
inline std::vector<Model> mma_models(Types types = Types::kBoth) {
  std::vector<Model> models{{.kv_head_of = groups(2, 4), .head_dim = 64},
                            {.kv_head_of = groups(2, 1), .head_dim = 80, .window = 40},
                            {.kv_head_of = {1, 1, 1, 3}, .head_dim = 96, .softcap = 2.0f, .out = DType::kBF16},
                            {.kv_head_of = groups(1, 3), .head_dim = 128, .window = 270, .out = DType::kF16},
                            {.kv_head_of = groups(1, 8), .head_dim = 128},
                            {.kv_head_of = groups(1, 1), .head_dim = 256, .softcap = 30.0f},
                            {.kv_head_of = groups(1, 20), .head_dim = 64, .window = 300}};
  for (size_t i = 0; i < models.size(); ++i) {
    models[i].cache = i % 2 == 0 ? DType::kBF16 : DType::kF16;
    models[i].order = KvOrder::kFragments;
  }
  if (types == Types::kOne) return models;
  // The other type of each head_dim that has had only one.
  for (int i : {0, 1, 2, 5}) {
    Model other = models[static_cast<size_t>(i)];
    other.cache = other.cache == DType::kBF16 ? DType::kF16 : DType::kBF16;
    models.push_back(other);
  }
  return models;
}

}  // namespace chorale::worker
