// Weights in fragments: every element in its place, padding zero, threads beside each other, and the device's copy.
#include "worker/ops/packed_weight.h"

#include <cstring>
#include <thread>

#include "tests/unit/worker/device_test_support.h"

namespace chorale::worker {
namespace {

float rounded(DType dtype, float x) { return dtype == DType::kBF16 ? to_float(to_bf16(x)) : to_float(to_f16(x)); }

PackedWeight make_fragments(DType dtype, int64_t n, int64_t k, std::vector<int64_t> leaf_begin = {}) {
  return make_packed_weight(dtype, n, k, std::move(leaf_begin), 0, WeightOrder::kFragments);
}

TEST(PackedWeight, FragmentsGiveBackEveryElement) {
  for (DType dtype : {DType::kBF16, DType::kF16})
    for (const std::vector<int64_t>& leaves :
         {std::vector<int64_t>{}, {0, 48, 96}, {0, 5, 12, 12, 45, 96}, {0, 1, 2, 96}, {0, 96}})
      for (int64_t n : {1, 15, 16, 17, 40}) {
        const int64_t k = leaves.empty() ? 37 : leaves.back();
        SCOPED_TRACE(fmt::format("{} n {} k {} leaves {}", to_string(dtype), n, k, leaves.size()));
        const std::vector<float> values = random_floats(n * k, 5);
        PackedWeight whole = make_fragments(dtype, n, k, leaves), parts = make_fragments(dtype, n, k, leaves);
        pack_rows(whole, 0, n, values.data());
        for (int64_t row = 0; row < n; row += 7)
          pack_rows(parts, row, std::min<int64_t>(7, n - row), values.data() + row * k);
        for (int64_t i = 0; i < n * k; ++i)
          ASSERT_EQ(packed_at(whole, i / k, i % k), rounded(dtype, values[static_cast<size_t>(i)])) << i;
        EXPECT_TRUE(same_bits(whole.data, parts.data));
      }
}

TEST(PackedWeight, FragmentsLieAsTheirInstructionReadsThem) {
  const int64_t n = 20, k = 30;  // leaves of 10 and 20: one and two steps
  std::vector<float> values(static_cast<size_t>(n * k));
  for (int64_t i = 0; i < n * k; ++i) values[static_cast<size_t>(i)] = static_cast<float>(i % 251 + 1);
  PackedWeight w = make_fragments(DType::kBF16, n, k, {0, 10, 30});
  pack_rows(w, 0, n, values.data());
  ASSERT_EQ(w.padded_k(), 48);
  ASSERT_EQ(w.data.shape().num_elements(), 32 * 48);
  const int64_t leaf_of_step[] = {0, 1, 1}, first_k[] = {0, 10, 26};
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t s = 0; s < 3; ++s)
      for (int64_t lane = 0; lane < 32; ++lane)
        for (int64_t j = 0; j < 8; ++j) {
          const int64_t reg = j / 2, output = 16 * i + lane / 4 + 8 * (reg % 2);
          const int64_t col = first_k[s] + lane % 4 * 2 + 8 * (reg / 2) + j % 2;
          const bool exists = output < n && col < w.leaf_begin[static_cast<size_t>(leaf_of_step[s]) + 1];
          const float want = exists ? values[static_cast<size_t>(output * k + col)] : 0.0f;
          ASSERT_EQ(to_float(w.data.as<BFloat16>()[((i * 3 + s) * 32 + lane) * 8 + j]), want)
              << "tile " << i << " step " << s << " lane " << lane << " element " << j;
        }
}

TEST(PackedWeight, ThreadsFillDisjointOutputs) {
  const int64_t n = 67, k = 50, threads = 4;
  const std::vector<float> values = random_floats(n * k, 3);
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    PackedWeight want = make_fragments(dtype, n, k, {0, 20, 50}), got = make_fragments(dtype, n, k, {0, 20, 50});
    pack_rows(want, 0, n, values.data());
    std::vector<std::thread> running;
    for (int64_t i = 0; i < threads; ++i)
      running.emplace_back([&, begin = n * i / threads, end = n * (i + 1) / threads] {
        pack_rows(got, begin, end - begin, values.data() + begin * k);
      });
    for (std::thread& thread : running) thread.join();
    EXPECT_TRUE(same_bits(got.data, want.data));
  }
}

TEST(CudaPackedWeight, CopiesToADevice) {
  TestDevice device;
  PackedWeight w = make_fragments(DType::kBF16, 33, 40, {0, 16, 40});
  const std::vector<float> values = random_floats(33 * 40, 8);
  pack_rows(w, 0, 33, values.data());
  const PackedWeight copy = to_device(w, device.device(), device.stream());
  EXPECT_EQ(copy.order, WeightOrder::kFragments);
  EXPECT_EQ(copy.padded_k(), w.padded_k());
  EXPECT_EQ(copy.data.view().device, device.ctx().device);
  EXPECT_TRUE(same_bits(device.download(copy.data), w.data));
}

TEST(PackedWeight, DevicesReadSixteenBitsInFragments) {
  EXPECT_EQ(weight_order(DeviceKind::kCpu, DType::kBF16), WeightOrder::kPanels);
  for (DeviceKind device : {DeviceKind::kCuda, DeviceKind::kEmulator}) {
    EXPECT_EQ(weight_order(device, DType::kF32), WeightOrder::kPanels);
    EXPECT_EQ(weight_order(device, DType::kBF16), WeightOrder::kFragments);
    EXPECT_EQ(weight_order(device, DType::kF16), WeightOrder::kFragments);
  }
}

TEST(PackedWeight, RefusesTypesThatAnOrderDoesNotHold) {
  EXPECT_THROW(make_packed_weight(DType::kF16, 4, 4), Error);
  EXPECT_THROW(make_fragments(DType::kF32, 4, 4), Error);
  EXPECT_THROW(make_fragments(DType::kBF16, 4, 4, {0, 3, 2, 4}), Error);
}

TEST(PackedWeight, RowsLieAsTheyCameAndHaveOneLeaf) {
  for (DType dtype : {DType::kBF16, DType::kF16}) {
    PackedWeight weight = make_packed_weight(dtype, 21, 5, {}, 0, WeightOrder::kRowMajor);
    std::vector<float> rows(21 * 5);
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i) / 2;
    pack_rows(weight, 3, 18, rows.data() + 3 * 5);
    pack_rows(weight, 0, 3, rows.data());
    EXPECT_EQ(weight.data.shape().num_elements(), 21 * 5);
    for (int64_t i = 0; i < 21 * 5; ++i) EXPECT_EQ(packed_at(weight, i / 5, i % 5), rows[static_cast<size_t>(i)]);
  }
  EXPECT_THROW(make_packed_weight(DType::kF32, 8, 8, {}, 0, WeightOrder::kRowMajor), Error);
  EXPECT_THROW(make_packed_weight(DType::kBF16, 8, 8, {0, 4, 8}, 0, WeightOrder::kRowMajor), Error);
}

}  // namespace
}  // namespace chorale::worker
