// linear_int8: every element in its place, the scalar kernel beside float64, and every device kernel with its bits.
#include "worker/ops/linear_int8.h"

#include <algorithm>
#include <cmath>

#include "tests/unit/worker/device_test_support.h"

namespace chorale::worker {
namespace {

constexpr int64_t kBlock = Int8Weight::kBlock;

struct Case {
  int64_t rows, n, k;
  std::vector<int64_t> leaf_begin = {};
  int64_t block_offset = 0;
  int first_leaf = 0;
  std::vector<comm::LeafRange> nodes = {};
  bool has_bias = false;

  int64_t num_blocks() const { return (block_offset + k + kBlock - 1) / kBlock; }
};

struct Quantised {
  std::vector<int8_t> values;  // [n, k], with both ends of the range
  std::vector<float> scales;   // [n, blocks]
};
Quantised random_values(const Case& c) {
  Quantised q;
  std::minstd_rand random(static_cast<uint32_t>(c.n * 31 + c.k));
  for (int64_t i = 0; i < c.n * c.k; ++i)
    q.values.push_back(static_cast<int8_t>(static_cast<int>(random() % 256) - 128));
  q.scales = random_floats(c.n * c.num_blocks(), 4);
  return q;
}

Int8Weight make_weight(const Case& c, const Quantised& q) {
  Int8Weight w = make_int8_weight(c.n, c.k, c.leaf_begin, c.first_leaf, c.block_offset);
  for (int64_t row = 0; row < c.n; row += 7)
    pack_int8_rows(w, row, std::min<int64_t>(7, c.n - row), q.values.data() + row * c.k,
                   q.scales.data() + row * c.num_blocks());
  return w;
}

class CudaLinearInt8 : public ::testing::Test {
 protected:
  void expect_cpu_bits(const Case& c) {
    SCOPED_TRACE(fmt::format("rows {} n {} k {} leaves {} offset {} nodes {}", c.rows, c.n, c.k, c.leaf_begin.size(),
                             c.block_offset, c.nodes.size()));
    const Int8Weight weight = make_weight(c, random_values(c));
    const Int8Weight on_device = to_device(weight, device_.device(), device_.stream());
    const int64_t num_nodes = c.nodes.empty() ? 1 : static_cast<int64_t>(c.nodes.size());
    const Tensor x = random_tensor(DType::kF32, {c.rows, c.k + 3}, 7);
    const Tensor device_x = device_.upload(x);
    const std::vector<float> bias = random_floats(c.n, 3);
    const Tensor device_bias = device_.upload(bias);
    Tensor want(DType::kF32, {num_nodes * c.rows, c.n});
    launch_scalar(device_.cpu(), LinearInt8Args{MatrixView(x).columns(3, c.k + 3), &weight,
                                                c.has_bias ? bias.data() : nullptr, want, c.nodes});
    LinearInt8Args args{MatrixView(device_x).columns(3, c.k + 3),
                        &on_device,
                        c.has_bias ? device_bias.as<float>() : nullptr,
                        {},
                        c.nodes};
    const int count = for_each_device_kernel(device_, args, [&](const Kernel<LinearInt8Args>& kernel) {
      Tensor got = device_.upload(Tensor(DType::kF32, {num_nodes * c.rows, c.n}));
      args.out = got;
      kernel.launch(device_.ctx(), args);
      ASSERT_TRUE(same_bits(device_.download(got), want));
    });
    EXPECT_GT(count, 0);
  }
  TestDevice device_;
};

TEST_F(CudaLinearInt8, GivesTheBitsOfTheCpu) {
  for (int64_t rows : {1, 2, 4, 5, 8, 9, 17}) expect_cpu_bits({.rows = rows, .n = 45, .k = 75, .has_bias = true});
  for (auto [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {31, 31}, {32, 32}, {33, 33}, {64, 128}, {65, 160}, {3, 300}})
    expect_cpu_bits({.rows = 3, .n = n, .k = k});
  expect_cpu_bits({.rows = 1, .n = 5, .k = 0, .has_bias = true});
  expect_cpu_bits({.rows = 2, .n = 32 * 515, .k = 40});  // two warps of outputs a block, the last one alone
}

TEST_F(CudaLinearInt8, CutsBlocksAtLeavesAndRanks) {
  const std::vector<int64_t> leaves{0, 80, 80, 83, 160, 290};
  for (int64_t offset : {0, 16, 31})
    for (int64_t rows : {1, 6})
      expect_cpu_bits(
          {.rows = rows, .n = 40, .k = 290, .leaf_begin = leaves, .block_offset = offset, .has_bias = true});
  expect_cpu_bits({.rows = 2, .n = 20, .k = 290, .leaf_begin = leaves, .first_leaf = 3, .nodes = {{3, 4}, {4, 8}}});
  std::vector<int64_t> most{0};
  for (int i = 0; i < 16; ++i) most.push_back(most.back() + 5 + i);
  expect_cpu_bits({.rows = 8, .n = 20, .k = most.back(), .leaf_begin = most});
}

/// Higham, recursive summation: (products + groups + leaves) roundings of at most the sum of magnitudes.
TEST_F(CudaLinearInt8, IsCloseToFloat64) {
  const Case c{.rows = 3, .n = 37, .k = 200, .leaf_begin = {0, 80, 200}, .block_offset = 16};
  const Quantised q = random_values(c);
  const Int8Weight w = make_weight(c, q);
  const Tensor x = random_tensor(DType::kF32, {c.rows, c.k}, 2);
  Tensor out(DType::kF32, {c.rows, c.n});
  linear_int8(device_.cpu(), {x, &w, nullptr, out, {}});
  for (int64_t r = 0; r < c.rows; ++r)
    for (int64_t j = 0; j < c.n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < c.k; ++i) {
        const double scale = q.scales[static_cast<size_t>(j * c.num_blocks() + (c.block_offset + i) / kBlock)];
        const double term = scale * q.values[static_cast<size_t>(j * c.k + i)] * x.as<float>()[r * c.k + i];
        sum += term;
        magnitude += std::fabs(term);
      }
      EXPECT_NEAR(out.as<float>()[r * c.n + j], sum, (kBlock + 8 + 2) * 0x1p-24 * magnitude);
    }
}

TEST_F(CudaLinearInt8, ARowDoesNotDependOnTheOthers) {
  const Case c{.rows = 21, .n = 40, .k = 150, .leaf_begin = {0, 70, 150}};
  const Int8Weight w = to_device(make_weight(c, random_values(c)), device_.device(), device_.stream());
  const Tensor x = device_.upload(random_tensor(DType::kF32, {c.rows, c.k}, 9));
  Tensor batch = device_.upload(Tensor(DType::kF32, {c.rows, c.n})),
         alone = device_.upload(Tensor(DType::kF32, {1, c.n}));
  linear_int8(device_.ctx(), {x, &w, nullptr, batch, {}});
  const Tensor want = device_.download(batch);
  for (int64_t row = 0; row < c.rows; ++row) {
    linear_int8(device_.ctx(), {MatrixView(x).row_range(row, row + 1), &w, nullptr, alone, {}});
    ASSERT_TRUE(same_bits(device_.download(alone), MatrixView(want).row_range(row, row + 1))) << row;
  }
}

TEST_F(CudaLinearInt8, RefusesLeavesAndOffsetsThatMakeNoSense) {
  EXPECT_THROW(make_int8_weight(4, 4, {0, 3, 2, 4}), Error);
  EXPECT_THROW(make_int8_weight(4, 4, {}, 0, 32), Error);
}

}  // namespace
}  // namespace chorale::worker
