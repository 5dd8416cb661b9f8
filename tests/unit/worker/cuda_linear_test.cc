// linear on a device: the scalar CPU kernel's bits from every kernel, over odd shapes, uneven leaves, the nodes of
// several ranks and strided matrices; and a row's independence of the others, across kernels. (On a GPU, sums of 16-bit
// types are compared between its own kernels only: the tensor cores' order is their own.)
#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

#include "comm/reduction_tree.h"
#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/linear.h"

namespace chorale::worker {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

Tensor random_matrix(DType dtype, int64_t rows, int64_t columns, uint32_t seed) {
  const std::vector<float> values = random_floats(rows * columns, seed);
  Tensor t(dtype, {rows, columns});
  for (size_t i = 0; i < values.size(); ++i) {
    if (dtype == DType::kF32) t.as<float>()[i] = values[i];
    if (dtype == DType::kBF16) t.as<BFloat16>()[i] = to_bf16(values[i]);
    if (dtype == DType::kF16) t.as<Float16>()[i] = to_f16(values[i]);
  }
  return t;
}

/// x and out inside wider buffers: `gap` elements before each row's part.
struct Case {
  int64_t rows, n, k;
  std::vector<int64_t> leaf_begin = {};
  int64_t gap = 0;
  int first_leaf = 0;
  std::vector<comm::LeafRange> nodes = {};
  bool has_bias = false;
};

std::string name_of(const Case& c, DType dtype) {
  return fmt::format("{} rows {} n {} k {} leaves {} from {} nodes {} gap {}", to_string(dtype), c.rows, c.n, c.k,
                     c.leaf_begin.empty() ? 1 : c.leaf_begin.size() - 1, c.first_leaf, c.nodes.size(), c.gap);
}

class CudaLinear : public ::testing::Test {
 protected:
  PackedWeight random_weight(DType dtype, const Case& c) {
    PackedWeight w =
        make_packed_weight(dtype, c.n, c.k, c.leaf_begin, c.first_leaf, weight_order(device_.ctx().device, dtype));
    pack_rows(w, 0, c.n, random_floats(c.n * c.k, static_cast<uint32_t>(c.n * 31 + c.k)).data());
    return w;
  }

  static MatrixView inner(const TensorView& buffer, int64_t gap) {
    return MatrixView(buffer).columns(gap, buffer.shape[1]);
  }

  void expect_cpu_bits(DType dtype, const Case& c) {
    SCOPED_TRACE(name_of(c, dtype));
    const PackedWeight weight = random_weight(dtype, c);
    const PackedWeight on_device = to_device(weight, device_.device(), device_.stream());
    const int64_t num_nodes = c.nodes.empty() ? 1 : static_cast<int64_t>(c.nodes.size());
    const Tensor x = random_matrix(dtype, c.rows, c.gap + c.k, 7);
    const Tensor out = random_matrix(DType::kF32, num_nodes * c.rows, c.gap + c.n, 8);
    const std::vector<float> bias = random_floats(c.n, 3);
    const Tensor device_x = device_.upload(x), device_bias = device_.upload(bias);

    Tensor want = out.clone();
    launch_scalar(device_.cpu(), LinearArgs{inner(x, c.gap), &weight, c.has_bias ? bias.data() : nullptr,
                                            inner(want, c.gap), c.nodes});
    LinearArgs args{inner(device_x, c.gap), &on_device, c.has_bias ? device_bias.as<float>() : nullptr, {}, c.nodes};
    bool is_known = device_.is_emulated() || dtype == DType::kF32;  // else the first kernel says it
    num_kernels_ += for_each_device_kernel(device_, args, [&](const Kernel<LinearArgs>& kernel) {
      Tensor got = device_.upload(out);
      args.out = inner(got, c.gap);
      kernel.launch(device_.ctx(), args);
      const Tensor result = device_.download(got);
      if (!is_known) want = result.clone();
      is_known = true;
      ASSERT_TRUE(same_bits(result, want));
    });
  }

  TestDevice device_;
  int num_kernels_ = 0;
};

TEST_F(CudaLinear, GivesTheBitsOfTheCpuOverOddShapes) {
  for (DType dtype : kTypes) {
    for (int64_t rows : {1, 2, 7, 8, 9, 16, 17, 64})
      expect_cpu_bits(dtype, {.rows = rows, .n = 33, .k = 77, .has_bias = true});
    for (auto [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {15, 31}, {16, 32}, {17, 33}, {129, 65}, {200, 16}})
      for (int64_t rows : {1, 9}) expect_cpu_bits(dtype, {.rows = rows, .n = n, .k = k});
    expect_cpu_bits(dtype, {.rows = 3, .n = 20, .k = 300});
    expect_cpu_bits(dtype, {.rows = 130, .n = 140, .k = 40, .has_bias = true});
    expect_cpu_bits(dtype, {.rows = 2, .n = 5, .k = 0, .has_bias = true});
  }
  EXPECT_GT(num_kernels_, 0);
}

TEST_F(CudaLinear, ReadsAndWritesPartsOfWiderBuffers) {
  for (DType dtype : kTypes)
    for (int64_t gap : {1, 3, 8})  // 8: still 16-byte aligned where the row's length allows
      for (int64_t k : {24, 45}) expect_cpu_bits(dtype, {.rows = 9, .n = 19, .k = k, .gap = gap});
}

/// Leaf i of `num`: long, short and (one) empty.
std::vector<int64_t> uneven_leaves(int num) {
  std::vector<int64_t> begin{0};
  for (int i = 0; i < num; ++i) begin.push_back(begin.back() + (i == 5 ? 0 : 3 + i * 7 % 20));
  return begin;
}

TEST_F(CudaLinear, MeetsLeafSumsInTheTree) {
  for (DType dtype : kTypes) {
    for (int leaves : {2, 3, 5, 8, 11, 16}) {
      const std::vector<int64_t> begin = uneven_leaves(leaves);
      expect_cpu_bits(dtype,
                      {.rows = leaves % 3 + 1, .n = 35, .k = begin.back(), .leaf_begin = begin, .has_bias = true});
    }
    expect_cpu_bits(dtype, {.rows = 40, .n = 20, .k = 112, .leaf_begin = {0, 0, 0, 40, 96, 96, 112, 112}});
    expect_cpu_bits(dtype, {.rows = 2, .n = 20, .k = 600, .leaf_begin = {0, 160, 170, 440, 600}});
  }
}

/// Shapes that nobody chose, the same ones each time.
TEST_F(CudaLinear, GivesTheBitsOfTheCpuOverRandomShapes) {
  std::minstd_rand random(7);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint32_t>(n)); };
  constexpr int64_t kRowCounts[] = {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 130};
  for (int i = 0; i < 48; ++i) {
    Case c{.rows = kRowCounts[i % 11], .n = 2 * below(100) + 1, .k = 2 * below(150) + 1, .has_bias = i % 3 == 0};
    if (i % 2 == 0) {
      for (int64_t leaf = below(16); leaf > 0; --leaf) c.leaf_begin.push_back(below(c.k + 1));
      c.leaf_begin.insert(c.leaf_begin.end(), {0, c.k});
      std::sort(c.leaf_begin.begin(), c.leaf_begin.end());
    }
    c.gap = 8 * below(2) + below(2);
    expect_cpu_bits(kTypes[i % 3], c);
  }
}

TEST_F(CudaLinear, GivesOneMatrixForEachNodeOfARank) {
  const int num_leaves = 13;
  const std::vector<int64_t> begin = uneven_leaves(num_leaves);
  for (int tp : {2, 3})
    for (const comm::LeafRange& run : comm::share_leaves(num_leaves, tp)) {
      std::vector<int64_t> local;
      for (int leaf = run.begin; leaf <= run.end; ++leaf)
        local.push_back(begin[static_cast<size_t>(leaf)] - begin[static_cast<size_t>(run.begin)]);
      for (DType dtype : kTypes)
        expect_cpu_bits(dtype, {.rows = 3,
                                .n = 18,
                                .k = local.back(),
                                .leaf_begin = local,
                                .first_leaf = run.begin,
                                .nodes = comm::maximal_nodes(num_leaves, run)});
    }
}

/// Launch shapes depend on how many outputs and rows there are; the bits do not.
TEST_F(CudaLinear, BlocksOfEveryShapeGiveTheSameBits) {
  // Four warps of outputs a block, the last one not full; and 128 wide tiles for many rows.
  expect_cpu_bits(DType::kBF16, {.rows = 2, .n = 16 * 1030 - 3, .k = 20});
  expect_cpu_bits(DType::kF32, {.rows = 2, .n = 32 * 520 - 3, .k = 20});
  expect_cpu_bits(DType::kF16, {.rows = 140, .n = 8200, .k = 17, .has_bias = true});
  // Two warps of outputs for each of two lanes of leaves.
  expect_cpu_bits(DType::kBF16, {.rows = 2, .n = 16 * 513, .k = 50, .leaf_begin = {0, 20, 50}});
  expect_cpu_bits(DType::kF32, {.rows = 2, .n = 32 * 513, .k = 20, .leaf_begin = {0, 5, 20}});
}

TEST_F(CudaLinear, ARowDoesNotDependOnTheOthers) {
  const std::vector<int64_t> begin = uneven_leaves(6);
  for (DType dtype : kTypes)
    for (bool has_leaves : {false, true}) {
      const Case c{.rows = 130, .n = 50, .k = begin.back(), .leaf_begin = has_leaves ? begin : std::vector<int64_t>{}};
      SCOPED_TRACE(name_of(c, dtype));
      const PackedWeight w = to_device(random_weight(dtype, c), device_.device(), device_.stream());
      const Tensor x = device_.upload(random_matrix(dtype, c.rows, c.k, 9));
      Tensor batch = device_.upload(Tensor(DType::kF32, {c.rows, c.n})),
             part = device_.upload(Tensor(DType::kF32, {17, c.n}));
      linear(device_.ctx(), {x, &w, nullptr, batch, {}});
      const Tensor want = device_.download(batch);
      for (int64_t rows : {1, 8, 17})
        for (int64_t first : {0, 7, 63, 113}) {
          const MatrixView out = MatrixView(part).row_range(0, rows);
          linear(device_.ctx(), {MatrixView(x).row_range(first, first + rows), &w, nullptr, out, {}});
          const Tensor got = device_.download(part);
          ASSERT_TRUE(same_bits(MatrixView(got).row_range(0, rows), MatrixView(want).row_range(first, first + rows)))
              << rows << " rows from " << first;
        }
    }
}

/// Zeros that are multiplied into a tile change no sum, not even a denormal one, which a GPU's tensor cores keep (N1:
/// what other outputs and rows of a tile multiply does not matter). Weights and x of 2^-67 give a sum of about 2^-130
/// in the first 16 k; from there on the even outputs and rows are zero, the odd ones are not.
TEST_F(CudaLinear, AZeroRowKeepsADenormalSum) {
  constexpr int64_t kOutputs = 48, kFirst = 16, kInputs = 160;
  const auto values = [&](int64_t rows, int64_t k, uint32_t seed) {
    std::vector<float> whole = random_floats(rows * kInputs, seed), part;
    for (int64_t i = 0; i < rows * kInputs; ++i) {
      float& value = whole[static_cast<size_t>(i)];
      if (i % kInputs < kFirst) value = (1.0f + std::fabs(value)) * 0x1p-67f;
      if (i % kInputs >= kFirst && i / kInputs % 2 == 0) value = 0.0f;
      if (i % kInputs < k) part.push_back(value);
    }
    return part;
  };
  const auto product = [&](const Kernel<LinearArgs>& kernel, int64_t rows, int64_t k) {
    PackedWeight w = make_packed_weight(DType::kBF16, kOutputs, k, {}, 0, WeightOrder::kFragments);
    pack_rows(w, 0, kOutputs, values(kOutputs, k, 1).data());
    const PackedWeight weight = to_device(w, device_.device(), device_.stream());
    const std::vector<float> floats = values(rows, k, 2);
    Tensor x(DType::kBF16, {rows, k});
    for (size_t i = 0; i < floats.size(); ++i) x.as<BFloat16>()[i] = to_bf16(floats[i]);
    const Tensor device_x = device_.upload(x);
    const Tensor out = device_.upload(Tensor(DType::kF32, {rows, kOutputs}));
    kernel.launch(device_.ctx(), {device_x, &weight, nullptr, out, {}});
    return device_.download(out);
  };
  int num_kernels = 0;
  for (const Kernel<LinearArgs>& kernel : KernelTable<LinearArgs>::all()) {
    if (kernel.device != device_.ctx().device || !kernel.name.starts_with("linear_mma")) continue;
    ++num_kernels;
    for (int64_t rows : {1, 8, 40}) {
      SCOPED_TRACE(fmt::format("{}, {} rows", kernel.name, rows));
      const Tensor want = product(kernel, rows, kFirst), got = product(kernel, rows, kInputs);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t output = 0; output < kOutputs; ++output) {
          const int64_t i = row * kOutputs + output;
          if (row % 2 == 0 || output % 2 == 0) {
            ASSERT_EQ(std::bit_cast<uint32_t>(got.as<float>()[i]), std::bit_cast<uint32_t>(want.as<float>()[i])) << i;
          }
          if (device_.is_emulated()) continue;
          ASSERT_TRUE(want.as<float>()[i] > 0 && want.as<float>()[i] < 0x1p-126f) << "not a denormal sum";
        }
    }
  }
  EXPECT_EQ(num_kernels, 2);
}

TEST_F(CudaLinear, WeightsInPanelsAndInFragmentsGiveTheSameBits) {
  if (!device_.is_emulated()) GTEST_SKIP() << "a tensor core adds in its own order";
  const std::vector<int64_t> begin = uneven_leaves(7);
  const int64_t n = 30, k = begin.back();
  PackedWeight panels = make_packed_weight(DType::kBF16, n, k, begin);
  PackedWeight fragments = make_packed_weight(DType::kBF16, n, k, begin, 0, WeightOrder::kFragments);
  const std::vector<float> values = random_floats(n * k, 1);
  pack_rows(panels, 0, n, values.data());
  pack_rows(fragments, 0, n, values.data());
  const Tensor x = random_matrix(DType::kBF16, 4, k, 7);
  Tensor want(DType::kF32, {4, n}), got(DType::kF32, {4, n});
  launch_scalar(device_.cpu(), LinearArgs{x, &panels, nullptr, want, {}});
  launch_scalar(device_.cpu(), LinearArgs{x, &fragments, nullptr, got, {}});
  EXPECT_TRUE(same_bits(got, want));
}

TEST_F(CudaLinear, WhatLiesBesideARowIsNotMultiplied) {
  const std::vector<int64_t> one_leaf{0, 21}, two_leaves{0, 10, 21};  // aligned to 16 bytes, and not
  for (int i = 0; i < 6; ++i) {
    const DType dtype = kTypes[i / 2];
    const Case c{.rows = 3, .n = 18, .k = 21, .leaf_begin = i % 2 == 0 ? one_leaf : two_leaves};
    SCOPED_TRACE(name_of(c, dtype));
    const PackedWeight weight = random_weight(dtype, c);
    const PackedWeight w = to_device(weight, device_.device(), device_.stream());
    Tensor clean = random_matrix(dtype, c.rows, 64, 9);
    Tensor dirty = clean.clone();
    for (int64_t row = 0; row < c.rows; ++row)  // NaNs in front of and behind columns [8, 29)
      for (int64_t col = 0; col < 64; ++col)
        if (col < 8 || col >= 29)
          std::memset(MatrixView(dirty).row_range(row, row + 1).columns(col, col + 1).data, 0xff, size_of(dtype));
    const Tensor device_x = device_.upload(dirty);
    Tensor want(DType::kF32, {c.rows, c.n});
    launch_scalar(device_.cpu(), LinearArgs{MatrixView(clean).columns(8, 29), &weight, nullptr, want, {}});
    Tensor got = device_.upload(want);
    LinearArgs args{MatrixView(device_x).columns(8, 29), &w, nullptr, got, {}};
    for_each_device_kernel(device_, args, [&](const Kernel<LinearArgs>& kernel) {
      kernel.launch(device_.ctx(), args);
      const Tensor result = device_.download(got);
      for (int64_t i = 0; i < c.rows * c.n; ++i) ASSERT_FALSE(std::isnan(result.as<float>()[i])) << i;
      if (device_.is_emulated()) {
        ASSERT_TRUE(same_bits(result, want));
      }
    });
  }
}

}  // namespace
}  // namespace chorale::worker
