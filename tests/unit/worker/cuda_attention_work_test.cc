// The list of work of attention on tensor cores: batches of very unequal lengths, little scratch, padding, and lengths
// that change between the launches of one captured graph. Every row's bits are those that it has alone.
#include "tests/unit/worker/attention_batches.h"

namespace chorale::worker {
namespace {

Model small_model(int head_dim = 64) {
  return {.kv_head_of = groups(1, 2), .head_dim = head_dim, .cache = DType::kBF16, .order = KvOrder::kFragments};
}

const Kernel<AttentionArgs>& kernel_of(TestDevice& device, const AttentionArgs& args) {
  const Kernel<AttentionArgs>& kernel = select_kernel(device.ctx(), args);
  CHECK(kernel.name.starts_with("attention_mma"));
  return kernel;
}

/// Chunks of one row in a batch have the bits that each has alone; padding has zeros.
void expect_as_alone(TestDevice& device, const Model& model, const std::vector<Chunk>& chunks, const Tensor& got) {
  for (size_t i = 0; i < chunks.size(); ++i) {
    const MatrixView row = MatrixView(got).row_range(static_cast<int64_t>(i), static_cast<int64_t>(i) + 1);
    if (chunks[i].text < 0) {
      ASSERT_TRUE(same_bits(row, Tensor(model.out, {1, row.cols}))) << "padding in row " << i;
      continue;
    }
    DeviceBatch alone(device, model, {chunks[i]}, 9);
    ASSERT_TRUE(same_bits(row, alone.run(kernel_of(device, alone.args())))) << "row " << i;
  }
}

std::vector<Chunk> decodes(std::initializer_list<int> contexts) {
  std::vector<Chunk> chunks;
  for (int context : contexts)
    chunks.push_back(context == 0 ? kPadding : Chunk{static_cast<int>(chunks.size()) % 5, context - 1, context});
  return chunks;
}

TEST(CudaAttentionWork, OneLongSequenceAmongManyIsCut) {
  TestDevice device;
  const Model model = small_model();
  std::vector<Chunk> chunks;
  for (int i = 0; i < 64; ++i) chunks.push_back({i % 5, i % 30, i % 30 + 1});
  chunks[37] = {6, 4999, 5000};
  DeviceBatch batch(device, model, chunks);
  EXPECT_EQ(batch.args().max_splits, 63 + 20);
  const uint64_t before = emulator::counters().blocks;
  const Tensor got = batch.run(kernel_of(device, batch.args()));
  if (device.is_emulated()) {
    // A warp a split of a tile, four a block, and a fold for each row, head and 32 outputs: nobody walks the long one.
    EXPECT_EQ(emulator::counters().blocks - before, (83u * 1 + 3) / 4 + 64u * 2 * 2);
  }
  expect_as_alone(device, model, chunks, got);
}

TEST(CudaAttentionWork, WarpsGoOnToFurtherItems) {
  TestDevice device;
  Model model = small_model();
  model.kv_head_of = groups(64, 1);  // 68 tiles a split: more items than the grid has warps
  std::vector<Chunk> chunks(63, {1, 1, 2});
  chunks.insert(chunks.begin() + 9, {0, 299, 300});
  DeviceBatch batch(device, model, chunks);
  const Tensor got = batch.run(kernel_of(device, batch.args()));
  DeviceBatch long_one(device, model, {chunks[9]}), short_one(device, model, {chunks[0]});
  const Tensor want_long = long_one.run(kernel_of(device, long_one.args()));
  const Tensor want_short = short_one.run(kernel_of(device, short_one.args()));
  for (int64_t i = 0; i < 64; ++i)
    ASSERT_TRUE(same_bits(MatrixView(got).row_range(i, i + 1), i == 9 ? want_long : want_short)) << "row " << i;
}

TEST(CudaAttentionWork, ScratchTooSmallForAllChangesNoBit) {
  TestDevice device;
  for (int head_dim : {64, 256}) {
    const Model model = small_model(head_dim);
    const std::vector<Chunk> chunks = decodes({300, 5, 1100, 256, 0, 700, 257});
    for (int64_t splits : {0, 2, 5, 8, 9, 12, 100}) {
      SCOPED_TRACE(splits);
      DeviceBatch batch(device, model, chunks);
      batch.args().partial_bytes = splits * model.num_heads() * (head_dim + 2) * 4;
      expect_as_alone(device, model, chunks, batch.run(kernel_of(device, batch.args())));
    }
  }
}

TEST(CudaAttentionWork, PaddingReadsNothingAndGivesZeros) {
  TestDevice device;
  for (Model model : {small_model(), small_model(80)}) {
    model.cache = model.head_dim == 80 ? DType::kF16 : DType::kBF16;
    model.window = model.head_dim == 80 ? 40 : 0;
    for (const std::vector<Chunk>& chunks :
         {decodes({0, 300, 0, 0, 17, 0}), decodes({0, 0, 0}), decodes({5, 0}), decodes({0, 600})}) {
      DeviceBatch batch(device, model, chunks);
      for_each_device_kernel(device, batch.args(), [&](const Kernel<AttentionArgs>& kernel) {
        if (kernel.name != "attention_generic") expect_as_alone(device, model, chunks, batch.run(kernel));
      });
      DeviceBatch vectors(device, {.kv_head_of = groups(1, 2), .head_dim = 7}, chunks);
      const Tensor got = vectors.run(*find_kernel(device, "attention_generic"));
      for (size_t i = 0; i < chunks.size(); ++i)
        for (int64_t column = 0; chunks[i].text < 0 && column < 14; ++column)
          ASSERT_EQ(element_of(got, static_cast<int64_t>(i), column), 0.0f);
    }
  }
}

/// What a decode graph does: captured once for a number of sequences and bounds, replayed while lengths change.
TEST(CudaAttentionWork, OneCapturedLaunchServesAllLengths) {
  TestDevice device;
  for (const Model& model : {small_model(), small_model(128)}) {
    const std::vector<std::vector<Chunk>> steps{decodes({700, 600, 520, 300, 16, 1}), decodes({1, 1, 1, 1, 1, 1}),
                                                decodes({256, 257, 512, 513, 0, 0}), decodes({0, 0, 0, 0, 0, 700}),
                                                decodes({2, 0, 699, 0, 255, 31})};
    DeviceBatch batch(device, model, steps[0]);
    AttentionArgs& args = batch.args();
    args.max_splits = args.num_sequences * 3;  // of 700 keys, the longest that may come
    args.max_query_len = 1;
    const Kernel<AttentionArgs>& kernel = kernel_of(device, args);
    const Tensor out = device.upload(Tensor(model.out, {args.q.rows, args.q.cols}));
    args.out = out;
    kernel.launch(device.ctx(), args);  // scratch grows now, not under capture
    const auto graph = device.stream().capture([&] { kernel.launch(device.ctx(), args); });
    uint32_t seed = 20;
    for (const std::vector<Chunk>& chunks : steps) {
      batch.refill(chunks, seed++);
      graph->launch(device.stream());
      expect_as_alone(device, model, chunks, device.download(out));
    }
  }
}

}  // namespace
}  // namespace chorale::worker
