// kv_write of worker/kernels/cuda, and the layout that it writes.
#include <algorithm>
#include <numeric>

#include "tests/unit/worker/device_cache.h"
#include "worker/ops/kv_write.h"

namespace chorale::worker {
namespace {

TEST(CudaKvWrite, LayoutIsTheOneThatTheCacheDocuments) {
  const KvPlace fragments{KvOrder::kFragments, 72, 80}, vectors{KvOrder::kVectors, 72, 80};
  for (int s = 0; s < 5; ++s)
    for (int l = 0; l < 32; ++l)
      for (int j = 0; j < 8; ++j) {
        const int g = l / 4, t = l % 4, tile = j / 4, reg = j / 2 % 2, half = j % 2, at = (s * 32 + l) * 8 + j;
        ASSERT_EQ(fragments.key_offset(8 * tile + g, 16 * s + 2 * t + 8 * reg + half), at);
        ASSERT_EQ(fragments.value_offset(2 * t + 8 * reg + half, 16 * s + 8 * tile + g), at);
      }
  EXPECT_EQ(fragments.key_elements(), 80 * 16);
  EXPECT_EQ(vectors.key_elements(), 72 * 16);
  EXPECT_EQ(vectors.key_offset(3, 71), 71 * 16 + 3);
  EXPECT_EQ(vectors.value_offset(3, 71), 3 * 80 + 71);
}

TEST(CudaKvWrite, ThePlanCountsTheCacheThatADeviceTakes) {
  parallel::ModelConfig config;
  config.vocab_size = 1024;
  config.hidden_size = 288;
  config.intermediate_size = 512;
  config.num_layers = 3;
  config.num_heads = config.num_kv_heads = 4;
  for (int head_dim : {64, 72, 7}) {
    config.head_dim = head_dim;
    const parallel::Layout layout = parallel::make_layout(config, {.tp = 2});
    for (DType dtype : {DType::kBF16, DType::kF16}) {
      const KvCacheSpec spec{dtype, 3, 2, head_dim, kv_order(DeviceKind::kCuda, dtype)};
      EXPECT_EQ(parallel::kv_block_bytes(config, layout, 0, dtype), static_cast<uint64_t>(kv_bytes_per_block(spec)));
    }
  }
}

TEST(CudaKvWrite, RoundsEachRowIntoItsSlotAndNothingElse) {
  TestDevice device;
  const int rows = 37, blocks = 5;
  for (const CacheShape& shape :
       {CacheShape{DType::kF32, KvOrder::kVectors, 3, 7}, CacheShape{DType::kF32, KvOrder::kFragments, 1, 20},
        CacheShape{DType::kBF16, KvOrder::kFragments, 2, 64}, CacheShape{DType::kBF16, KvOrder::kVectors, 2, 80},
        CacheShape{DType::kF16, KvOrder::kFragments, 3, 7}, CacheShape{DType::kF16, KvOrder::kFragments, 1, 256}}) {
    const int width = shape.num_kv_heads * shape.head_dim;
    const std::vector<float> kv = random_floats(rows * (2 * width + 3), 1);  // k and v in rows of a wider matrix
    std::vector<int32_t> slots(blocks * kBlockTokens);
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), std::minstd_rand(7));
    const Tensor empty_k = shape.keys(blocks), empty_v = shape.values(blocks);
    const Tensor want_k = empty_k.clone(), want_v = empty_v.clone();
    for (int row = 0; row < rows; ++row) {
      const float* k = kv.data() + row * (2 * width + 3) + 3;
      shape.write(want_k, want_v, slots[static_cast<size_t>(row)], k, k + width);
    }
    const Tensor device_kv = device.upload(kv), device_slots = device.upload(slots);
    const MatrixView matrix(device_kv.view().data, DType::kF32, rows, 2 * width + 3, 2 * width + 3,
                            device.ctx().device);
    KvWriteArgs args{
        matrix.columns(3, 3 + width), matrix.columns(3 + width, 3 + 2 * width), device_slots.as<int32_t>(), {}};
    const int count = for_each_device_kernel(device, args, [&](const Kernel<KvWriteArgs>& kernel) {
      const Tensor k = device.upload(empty_k), v = device.upload(empty_v);
      args.cache = shape.layer(k, v);
      kernel.launch(device.ctx(), args);
      EXPECT_TRUE(same_bits(device.download(k), want_k)) << to_string(shape.dtype) << " head_dim " << shape.head_dim;
      EXPECT_TRUE(same_bits(device.download(v), want_v)) << to_string(shape.dtype) << " head_dim " << shape.head_dim;
    });
    EXPECT_GT(count, 0);
  }
}

}  // namespace
}  // namespace chorale::worker
