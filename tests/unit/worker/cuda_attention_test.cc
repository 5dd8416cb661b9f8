// Attention of worker/kernels/cuda. The generic kernel has the scalar CPU kernel's bits; those on tensor
// cores are compared with float64 and, bit for bit, with themselves: alone or in a batch, whole prompts, chunks or
// single tokens, in other blocks of the cache. What nobody may read is NaN.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/unit/worker/attention_reference.h"
#include "tests/unit/worker/device_cache.h"
#include "worker/ops/attention.h"

namespace chorale::worker {
namespace {

/// A batch on the host: every chunk has blocks of its own, shuffled by `seed`, in a cache full of NaN.
struct Batch {
  Batch(const Model& m, const std::vector<Chunk>& chunks, uint32_t seed, DType dtype, KvOrder order)
      : model(m), shape{dtype, order, m.num_kv_heads(), m.head_dim} {
    int num_blocks = 3;
    for (const Chunk& c : chunks) num_blocks += blocks_of(c), stride = std::max(stride, blocks_of(c));
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
      const Text text(m, c.text, c.end);
      int32_t* blocks = table.data() + static_cast<int64_t>(s) * stride;
      for (int b = 0; b < blocks_of(c); ++b) blocks[b] = ids.back(), ids.pop_back();
      for (int p = 0; p < c.end; ++p) {
        const int32_t slot = blocks[p / kBlockTokens] * kBlockTokens + p % kBlockTokens;
        float key[3000], value[3000];
        for (int i = 0; i < kv_width; ++i) {
          key[i] = rounded(text.k[static_cast<size_t>(p * kv_width + i)], m.cache);
          value[i] = rounded(text.v[static_cast<size_t>(p * kv_width + i)], m.cache);
        }
        shape.write(k, v, slot, key, value);
      }
      q.insert(q.end(), text.q.begin() + int64_t{c.begin} * q_width, text.q.begin() + int64_t{c.end} * q_width);
      query_start.push_back(query_start.back() + c.end - c.begin);
      context_len.push_back(c.end);
    }
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
    return args;
  }

  Model model;
  CacheShape shape;
  Tensor k, v;
  std::vector<float> q;
  std::vector<int32_t> query_start{0}, context_len, table;
  int stride = 1;
};

/// The scalar CPU kernel's answer: float32 cache unless bf16, whose rounded values are the same numbers.
Tensor on_cpu(TestDevice& device, const Model& model, const std::vector<Chunk>& chunks) {
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
  DeviceBatch(TestDevice& device, const Model& model, const std::vector<Chunk>& chunks, uint32_t seed = 1)
      : device_(device),
        batch_(model, chunks, seed, model.cache, model.order),
        k_(device.upload(batch_.k)),
        v_(device.upload(batch_.v)),
        kv_head_of_(device.upload(batch_.model.kv_head_of)),
        query_start_(device.upload(batch_.query_start)),
        context_len_(device.upload(batch_.context_len)),
        table_(device.upload(batch_.table)) {
    const int64_t width = batch_.width(), stride = width + 5;
    std::vector<float> wide(static_cast<size_t>(batch_.rows() * stride), NAN);
    for (int64_t row = 0; row < batch_.rows(); ++row)
      std::copy_n(batch_.q.begin() + row * width, width, wide.begin() + row * stride + 3);
    q_ = device.upload(wide);
    args_ = batch_.args();
    args_.q = MatrixView(q_.view().data, DType::kF32, batch_.rows(), stride, stride, device.ctx().device)
                  .columns(3, 3 + width);
    args_.cache = batch_.shape.layer(k_, v_);
    args_.kv_head_of = kv_head_of_.as<int32_t>();
    args_.query_start = query_start_.as<int32_t>();
    args_.context_len = context_len_.as<int32_t>();
    args_.block_table = table_.as<int32_t>();
  }
  const AttentionArgs& args() const { return args_; }
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
  Tensor k_, v_, kv_head_of_, query_start_, context_len_, table_, q_;
  AttentionArgs args_;
};

const Kernel<AttentionArgs>* find_kernel(TestDevice& device, std::string_view name) {
  for (const Kernel<AttentionArgs>& kernel : KernelTable<AttentionArgs>::all())
    if (kernel.device == device.ctx().device && kernel.name == name) return &kernel;
  return nullptr;
}

TEST(CudaAttention, GenericKernelGivesTheScalarBits) {
  TestDevice device;
  const Kernel<AttentionArgs>* kernel = find_kernel(device, "attention_generic");
  ASSERT_NE(kernel, nullptr);
  const std::vector<Model> models{
      {.kv_head_of = groups(2, 2), .head_dim = 16},
      {.kv_head_of = {0, 0, 0, 1}, .head_dim = 7, .window = 40, .out = DType::kBF16},
      {.kv_head_of = groups(1, 3), .head_dim = 64, .cache = DType::kBF16, .order = KvOrder::kFragments},
      {.kv_head_of = groups(1, 4), .head_dim = 80, .cache = DType::kBF16, .softcap = 2.0f, .out = DType::kBF16},
      {.kv_head_of = groups(2, 1), .head_dim = 7, .cache = DType::kF16, .order = KvOrder::kFragments, .window = 300},
      {.kv_head_of = groups(1, 2), .head_dim = 96, .mask = AttentionMask::kFull},
      {.kv_head_of = groups(1, 1), .head_dim = 256, .window = 17, .softcap = 0.5f},
      {.kv_head_of = groups(1, 8), .head_dim = 20, .cache = DType::kBF16, .order = KvOrder::kFragments}};
  const std::vector<Chunk> batch{{0, 0, 1},     {1, 14, 15},   {1, 15, 16},   {2, 16, 17},   {3, 40, 40}, {3, 254, 255},
                                 {4, 255, 256}, {5, 256, 257}, {6, 599, 600}, {7, 280, 290}, {8, 0, 19},  {9, 5, 5}};
  for (const Model& model : models) {
    SCOPED_TRACE(name_of(model));
    const Tensor want = on_cpu(device, model, batch);
    DeviceBatch on_device(device, model, batch);
    ASSERT_TRUE(kernel->supports(device.ctx(), on_device.args()));
    for_each_thread_order(device, [&] { ASSERT_TRUE(same_bits(on_device.run(*kernel), want)); });
    DeviceBatch short_one(device, model, {{2, 16, 17}});  // one split, so one warp
    ASSERT_TRUE(same_bits(short_one.run(*kernel), MatrixView(want).row_range(3, 4)));
  }
}

/// Models of the tensor core kernels: every head_dim and type, groups of 1 to 20 heads, also uneven ones,
/// and KV heads that no query head reads.
enum class Types { kOne, kBoth };
std::vector<Model> mma_models(Types types = Types::kBoth) {
  std::vector<Model> models{{.kv_head_of = groups(2, 4), .head_dim = 64},
                            {.kv_head_of = groups(2, 1), .head_dim = 80, .window = 40},
                            {.kv_head_of = {1, 1, 1, 3}, .head_dim = 96, .softcap = 2.0f, .out = DType::kBF16},
                            {.kv_head_of = groups(1, 3), .head_dim = 128, .window = 270},
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

TEST(CudaAttention, EveryShapeHasATensorCoreKernel) {
  TestDevice device;
  for (const Model& model : mma_models()) {
    const DeviceBatch batch(device, model, {{0, 0, 1}});
    EXPECT_TRUE(select_kernel(device.ctx(), batch.args()).name.starts_with("attention_mma")) << name_of(model);
  }
  const DeviceBatch odd(device, {.kv_head_of = {0}, .head_dim = 72, .cache = DType::kBF16}, {{0, 0, 1}});
  EXPECT_EQ(select_kernel(device.ctx(), odd.args()).name, "attention_generic");
}

TEST(CudaAttention, IsCloseToFloat64) {
  TestDevice device;
  const std::vector<Chunk> batch{{0, 0, 1},     {1, 14, 15},   {1, 15, 16},   {2, 16, 17},  {3, 254, 255},
                                 {4, 255, 256}, {5, 256, 257}, {6, 599, 600}, {7, 280, 290}};
  for (Model model : mma_models())
    for (auto mask : {AttentionMask::kCausal, AttentionMask::kFull}) {
      model.mask = mask;
      SCOPED_TRACE(name_of(model));
      DeviceBatch on_device(device, model, batch);
      const int count = for_each_device_kernel(device, on_device.args(), [&](const Kernel<AttentionArgs>& kernel) {
        if (kernel.name.starts_with("attention_mma")) expect_close(model, on_device.run(kernel), batch);
      });
      EXPECT_EQ(count, 2);
    }
}

/// A row's bits depend on its query and the keys that it sees: not on the batch, on how its prompt was cut, on the
/// blocks that hold its keys, or on whether one warp or several took its splits.
TEST(CudaAttention, OnlyTheRowAndItsKeysMatter) {
  TestDevice device;
  const int length = 275;
  for (const Model& model : mma_models(Types::kOne)) {
    SCOPED_TRACE(name_of(model));
    DeviceBatch whole(device, model, {{0, 0, length}});  // long: a warp takes all splits of its tile
    // Single tokens among others; one is long, so that the rest is cut.
    const std::vector<Chunk> tokens{{0, 0, 1},     {0, 1, 2},     {1, 30, 49},   {0, 15, 16},
                                    {0, 16, 17},   {0, 17, 18},   {0, 254, 255}, {2, 599, 600},
                                    {0, 255, 256}, {0, 256, 257}, {0, 274, 275}};
    // Chunks: some short enough to be cut, one not; and a batch of only short contexts, which has one split.
    const std::vector<Chunk> chunks{{0, 0, 7}, {3, 3, 3}, {0, 7, 64}, {0, 64, 250}, {0, 250, 275}, {4, 0, 40}};
    const std::vector<Chunk> short_ones{{0, 40, 41}, {5, 0, 3}, {0, 41, 49}};
    for_each_device_kernel(device, whole.args(), [&](const Kernel<AttentionArgs>& kernel) {
      if (kernel.name == "attention_generic") return;  // has the scalar kernel's bits in any batch, by the test above
      const Tensor want = whole.run(kernel);
      uint32_t seed = 2;
      for (const std::vector<Chunk>& batch : {tokens, chunks, short_ones}) {
        const Tensor got = DeviceBatch(device, model, batch, seed++).run(kernel);
        int64_t row = 0;
        for (const Chunk& c : batch) {
          const int64_t end = row + c.end - c.begin;
          if (c.text == 0) {
            ASSERT_TRUE(same_bits(MatrixView(got).row_range(row, end), MatrixView(want).row_range(c.begin, c.end)))
                << "positions from " << c.begin << " to " << c.end;
          }
          row = end;
        }
      }
    });
  }
}

TEST(CudaAttention, FoldsMoreSplitsThanAWarpHasLanes) {
  TestDevice device;
  for (int window : {0, 8250}) {
    const Model model{
        .kv_head_of = groups(1, 2), .cache = DType::kBF16, .order = KvOrder::kFragments, .window = window};
    const std::vector<Chunk> alone{{0, 8299, 8300}};  // cut
    DeviceBatch cut(device, model, alone);
    DeviceBatch looped(device, model, {{1, 4, 5}, {0, 8290, 8300}, {2, 0, 1}, {3, 0, 1}, {4, 8, 9}}, 2);
    for_each_device_kernel(device, cut.args(), [&](const Kernel<AttentionArgs>& kernel) {
      if (kernel.name == "attention_generic") return;
      const Tensor got = cut.run(kernel);
      expect_close(model, got, alone);
      ASSERT_TRUE(same_bits(got, MatrixView(looped.run(kernel)).row_range(10, 11)));
    });
  }
}

TEST(CudaAttention, RowsThatSeeNoKeyAreZero) {
  TestDevice device;
  for (Model model : {mma_models()[0], mma_models()[5]}) {
    model.mask = AttentionMask::kFull;
    DeviceBatch batch(device, model, {{0, 0, 3}});
    AttentionArgs args = batch.args();
    const Tensor none = device.upload(std::vector<int32_t>{0});
    args.context_len = none.as<int32_t>();
    for (int64_t stride : {1, 40}) {  // looped, cut
      args.block_table_stride = stride;
      for_each_device_kernel(device, args, [&](const Kernel<AttentionArgs>& kernel) {
        const Tensor out = device.upload(random_tensor(model.out, {args.q.rows, args.q.cols}, 1));
        args.out = out;
        kernel.launch(device.ctx(), args);
        EXPECT_TRUE(same_bits(device.download(out), Tensor(model.out, {args.q.rows, args.q.cols})));
      });
    }
  }
}

}  // namespace
}  // namespace chorale::worker
