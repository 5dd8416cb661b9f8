// logit_stats and top_k for CUDA: the scalar CPU kernel's bits, ties, NaN and infinities included.
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/logits.h"

namespace chorale::worker {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

/// Rows with masked ids; the second has nothing else.
Tensor masked_logits(int64_t rows, int64_t n) {
  Tensor logits = random_tensor(DType::kF32, {rows, n}, 1);
  for (int64_t i = 0; i < rows * n; ++i) {
    logits.as<float>()[i] *= 20.0f;
    if (i % 7 == 0 || i / n == 1) logits.as<float>()[i] = -kInf;
  }
  return logits;
}

TEST(CudaLogits, StatsOfChunks) {
  TestDevice device;
  for (int64_t n : {1, 17, 1023, 1024, 1025, 9000})
    for (int64_t begin : {0, 3}) {
      const Tensor logits = masked_logits(3, n + begin), device_logits = device.upload(logits);
      const int64_t chunks = (n + kVocabChunk - 1) / kVocabChunk;
      Tensor want(DType::kF32, {3, 2 * chunks});
      launch_scalar(device.cpu(), LogitStatsArgs{MatrixView(logits).columns(begin, n + begin),
                                                 reinterpret_cast<SoftmaxStats*>(want.as<float>())});
      LogitStatsArgs args{MatrixView(device_logits).columns(begin, n + begin)};
      const int count = for_each_device_kernel(device, args, [&](const Kernel<LogitStatsArgs>& kernel) {
        Tensor got(device.device(), DType::kF32, {3, 2 * chunks});
        args.stats = reinterpret_cast<SoftmaxStats*>(got.as<float>());
        kernel.launch(device.ctx(), args);
        EXPECT_TRUE(same_bits(device.download(got), want)) << n;
      });
      EXPECT_GT(count, 0);
    }
}

void expect_top_k(TestDevice& device, const Tensor& logits, int64_t k) {
  const Tensor device_logits = device.upload(logits);
  const int64_t rows = logits.shape()[0];
  std::vector<int32_t> want_ids(static_cast<size_t>(rows * k));
  std::vector<float> want(want_ids.size());
  launch_scalar(device.cpu(), TopKArgs{logits, k, want_ids.data(), want.data()});
  TopKArgs args{device_logits, k, nullptr, nullptr};
  const int count = for_each_device_kernel(device, args, [&](const Kernel<TopKArgs>& kernel) {
    Tensor ids(device.device(), DType::kI32, {rows, k}), values(device.device(), DType::kF32, {rows, k});
    args.ids = ids.as<int32_t>();
    args.values = values.as<float>();
    kernel.launch(device.ctx(), args);
    const Tensor got_ids = device.download(ids), got = device.download(values);
    EXPECT_EQ(std::memcmp(got_ids.as<int32_t>(), want_ids.data(), want_ids.size() * sizeof(int32_t)), 0)
        << "k " << k << " of " << logits.shape()[1];
    EXPECT_EQ(std::memcmp(got.as<float>(), want.data(), want.size() * sizeof(float)), 0) << "k " << k;
    args.values = nullptr;
    kernel.launch(device.ctx(), args);
  });
  EXPECT_GT(count, 0);
}

TEST(CudaLogits, TopKOfOddSizes) {
  TestDevice device;
  for (int64_t n : {1, 5, 1024, 1025, 3001})
    for (int64_t k : {int64_t{1}, int64_t{2}, int64_t{20}, int64_t{1025}, n})
      if (k <= n) expect_top_k(device, masked_logits(2, n), k);
}

TEST(CudaLogits, TopKOfTiesNanAndInfinities) {
  TestDevice device;
  const int64_t n = 5000;
  Tensor logits = random_tensor(DType::kF32, {4, n}, 1);
  for (int64_t i = 0; i < 4 * n; ++i) {
    float& x = logits.as<float>()[i];
    x = std::round(x * 50.0f);  // many ties, also between the zeros
    if (i % 11 == 0) x = kNan;
    if (i % 13 == 0) x = -kInf;
    if (i % 17 == 0) x = 1e-40f;  // compares as zero
    if (i / n == 1 && i % 500 == 3) x = kInf;
    if (i / n == 2) x = 1.5f;
    if (i / n == 3) x = i % 2 == 0 ? kNan : -kInf;
  }
  for (int64_t k : {int64_t{1}, int64_t{7}, int64_t{1500}, n}) expect_top_k(device, logits, k);
}

TEST(CudaLogits, TopKOfManyRowsAndALargeVocabulary) {
  TestDevice device;
  expect_top_k(device, masked_logits(40, 300), 3);
  expect_top_k(device, masked_logits(1, 50000), 1);
  expect_top_k(device, masked_logits(1, 50000), 20);
}

}  // namespace
}  // namespace chorale::worker
