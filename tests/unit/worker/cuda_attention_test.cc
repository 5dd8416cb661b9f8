// Attention of worker/kernels/cuda. The generic kernel has the scalar CPU kernel's bits; those on tensor
// cores are compared with float64 and, bit for bit, with themselves: alone or in a batch, whole prompts, chunks or
// single tokens, in other blocks of the cache. What nobody may read is NaN.
#include "tests/unit/worker/attention_batches.h"

namespace chorale::worker {
namespace {

TEST(CudaAttention, GenericKernelGivesTheScalarBits) {
  TestDevice device;
  const Kernel<AttentionArgs>* kernel = find_kernel(device, "attention_generic");
  ASSERT_NE(kernel, nullptr);
  const std::vector<Model> models{
      {.kv_head_of = groups(2, 2), .head_dim = 16},
      {.kv_head_of = {0, 0, 0, 1}, .head_dim = 7, .window = 40, .out = DType::kBF16},
      {.kv_head_of = groups(1, 3),
       .head_dim = 64,
       .cache = DType::kBF16,
       .order = KvOrder::kFragments,
       .out = DType::kF16},
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
    const Tensor no_splits = device.upload(std::vector<int32_t>{0, 0});
    args.split_start = no_splits.as<int32_t>();
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
