// linear: every kernel gives the scalar reference's bits; an output depends on its own row only; leaves meet in the
// tree whoever holds them.
#include "worker/ops/linear.h"

#include <algorithm>
#include <cmath>

#include "comm/reduction_tree.h"
#include "tests/unit/worker/op_test_support.h"
#include "worker/ops/cast.h"

namespace chorale::worker {
namespace {

PackedWeight random_weight(DType dtype, int64_t n, int64_t k, const std::vector<int64_t>& leaf_begin = {},
                           int first_leaf = 0) {
  PackedWeight w = make_packed_weight(dtype, n, k, leaf_begin, first_leaf);
  const std::vector<float> values = random_floats(n * k, static_cast<uint32_t>(n * 31 + k));
  pack_rows(w, 0, n, values.data());
  return w;
}

struct Case {
  int64_t rows, n, k;
  std::vector<int64_t> leaf_begin;
};

std::vector<Case> cases() {
  std::vector<Case> list;
  for (int64_t rows : {1, 2, 3, 4, 5, 6, 7, 9, 13, 14, 15, 29})
    for (auto [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {129, 37}, {96, 64}, {300, 33}})
      list.push_back({rows, n, k, {}});
  for (int64_t n : {15, 16, 17, 31, 127, 128, 257}) list.push_back({2, n, 20, {}});
  list.push_back({1, 130, 700, {}});    // several chunks of k
  list.push_back({20, 144, 1300, {}});  // ... shared by row tiles
  list.push_back({300, 40, 50, {}});    // several blocks of rows
  for (int64_t rows : {1, 5, 15, 130}) {
    list.push_back({rows, 136, 96, {0, 32, 64, 96}});
    list.push_back({rows, 70, 45, {0, 9, 18, 27, 36, 45}});       // odd leaves are padded in bf16
    list.push_back({rows, 33, 20, {0, 3, 3, 4, 9, 15, 18, 20}});  // an empty leaf
    list.push_back({rows, 17, 160, {0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160}});
  }
  return list;
}

std::string name_of(const Case& c) {
  return fmt::format("rows {} n {} k {} leaves {}", c.rows, c.n, c.k,
                     c.leaf_begin.empty() ? 1 : c.leaf_begin.size() - 1);
}

TEST(Linear, KernelsGiveTheBitsOfTheScalarReference) {
  TestRank rank(2);
  for (const Case& c : cases())
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(name_of(c) + " " + std::string(to_string(dtype)));
      const PackedWeight w = random_weight(dtype, c.n, c.k, c.leaf_begin);
      const Tensor x = random_tensor(dtype, {c.rows, c.k}, 7);
      const std::vector<float> bias = random_floats(c.n, 3);
      Tensor want(DType::kF32, {c.rows, c.n}), got(DType::kF32, {c.rows, c.n});
      launch_scalar(rank.ctx, LinearArgs{x, &w, bias.data(), want, {}});
      const LinearArgs args{x, &w, bias.data(), got, {}};
      for_each_vector_kernel(rank.ctx, args, [&](const Kernel<LinearArgs>& kernel) {
        std::fill_n(got.as<float>(), c.rows * c.n, NAN);
        kernel.launch(rank.ctx, args);
        ASSERT_TRUE(same_bits(got, want));
      });
    }
}

/// Products around 2^-126: vdpbf16ps flushes denormals whatever MXCSR says, so all threads must.
TEST(Linear, DenormalSumsAreFlushedAlikeByEveryKernel) {
  const int64_t rows = 3, n = 64, k = 40;
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    TestRank rank(2);
    std::vector<float> values = random_floats(n * k, 1);
    for (float& value : values) value *= 0x1p-62f;
    PackedWeight w = make_packed_weight(dtype, n, k);
    pack_rows(w, 0, n, values.data());
    Tensor x = random_tensor(DType::kF32, {rows, k}, 2), rounded(dtype, {rows, k});
    for (int64_t i = 0; i < rows * k; ++i) x.as<float>()[i] *= 0x1p-62f;
    cast(rank.ctx, {x, rounded});
    Tensor want(DType::kF32, {rows, n}), got(DType::kF32, {rows, n});
    launch_scalar(rank.ctx, LinearArgs{rounded, &w, nullptr, want, {}});
    int64_t zeros = 0;
    for (int64_t i = 0; i < rows * n; ++i) {
      zeros += want.as<float>()[i] == 0.0f;
      ASSERT_FALSE(std::fpclassify(want.as<float>()[i]) == FP_SUBNORMAL);
    }
    EXPECT_GT(zeros, 0);
    EXPECT_LT(zeros, rows * n);
    const LinearArgs args{rounded, &w, nullptr, got, {}};
    for_each_vector_kernel(rank.ctx, args, [&](const Kernel<LinearArgs>& kernel) {
      kernel.launch(rank.ctx, args);
      EXPECT_TRUE(same_bits(got, want));
    });
  }
}

TEST(Linear, IsCloseToFloat64) {
  TestRank rank(1, parallel::best_isa(DType::kF32));
  const int64_t rows = 3, n = 50, k = 500;
  const std::vector<float> weights = random_floats(n * k, 1);
  PackedWeight w = make_packed_weight(DType::kF32, n, k);
  pack_rows(w, 0, n, weights.data());
  const Tensor x = random_tensor(DType::kF32, {rows, k}, 2);
  Tensor out(DType::kF32, {rows, n});
  linear(rank.ctx, {x, &w, nullptr, out, {}});
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double term = static_cast<double>(weights[static_cast<size_t>(j * k + i)]) * x.as<float>()[r * k + i];
        sum += term;
        magnitude += std::fabs(term);
      }
      EXPECT_NEAR(out.as<float>()[r * n + j], sum,
                  static_cast<double>(k) * 0x1p-24 * magnitude);  // Higham, recursive summation
    }
}

TEST(Linear, PackingPutsEveryElementInItsPlace) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const int64_t n = 147, k = 21;
    const std::vector<float> values = random_floats(n * k, 5);
    PackedWeight whole = make_packed_weight(dtype, n, k, {0, 5, 12, 21}),
                 parts = make_packed_weight(dtype, n, k, {0, 5, 12, 21});
    pack_rows(whole, 0, n, values.data());
    for (int64_t row = 0; row < n; row += 10)
      pack_rows(parts, row, std::min<int64_t>(10, n - row), values.data() + row * k);
    for (int64_t i = 0; i < n * k; ++i) {
      const float value = values[static_cast<size_t>(i)];
      ASSERT_EQ(packed_at(whole, i / k, i % k), dtype == DType::kF32 ? value : to_float(to_bf16(value)));
    }
    EXPECT_TRUE(same_bits(whole.data, parts.data));
  }
}

TEST(Linear, ARowDoesNotDependOnTheOthers) {
  const int64_t rows = 33, n = 200, k = 90;
  for (auto isa : isas_of_this_cpu())
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      TestRank rank(1, isa);
      const PackedWeight w = random_weight(dtype, n, k);
      const Tensor x = random_tensor(dtype, {rows, k}, 9);
      Tensor batch(DType::kF32, {rows, n}), alone(DType::kF32, {1, n});
      linear(rank.ctx, {x, &w, nullptr, batch, {}});
      for (int64_t r = 0; r < rows; ++r) {
        linear(rank.ctx, {MatrixView(x).row_range(r, r + 1), &w, nullptr, alone, {}});
        ASSERT_TRUE(same_bits(MatrixView(batch).row_range(r, r + 1), alone))
            << parallel::to_string(isa) << " row " << r;
      }
    }
}

TEST(Linear, TheNumberOfThreadsDoesNotMatter) {
  for (auto isa : isas_of_this_cpu())
    for (int64_t rows : {1, 40})
      for (int64_t n : {20, 400}) {
        const PackedWeight w = random_weight(DType::kBF16, n, 64, {0, 16, 32, 48, 64});
        const Tensor x = random_tensor(DType::kBF16, {rows, 64}, 4);
        TestRank one(1, isa);
        Tensor want(DType::kF32, {rows, n});
        linear(one.ctx, {x, &w, nullptr, want, {}});
        for (int threads : {2, 3, 8}) {
          TestRank many(threads, isa);
          Tensor got(DType::kF32, {rows, n});
          linear(many.ctx, {x, &w, nullptr, got, {}});
          ASSERT_TRUE(same_bits(got, want)) << parallel::to_string(isa) << " threads " << threads;
        }
      }
}

/// One rank with all leaves, against ranks with a run of leaves each whose nodes are added as the schedule says.
TEST(Linear, SplittingTheLeavesOverRanksChangesNothing) {
  const int num_leaves = 9;
  const int64_t rows = 5, n = 40, head = 12, k = num_leaves * head;
  const std::vector<float> values = random_floats(n * k, 1);
  for (auto isa : isas_of_this_cpu())
    for (DType dtype : {DType::kF32, DType::kBF16})
      for (int tp : {1, 2, 3, 4, 5, 9}) {
        SCOPED_TRACE(fmt::format("{} tp {}", parallel::to_string(isa), tp));
        TestRank rank(1, isa);
        const Tensor x = random_tensor(dtype, {rows, k}, 8);
        std::vector<int64_t> all_leaves;
        for (int i = 0; i <= num_leaves; ++i) all_leaves.push_back(i * head);
        PackedWeight whole = make_packed_weight(dtype, n, k, all_leaves);
        pack_rows(whole, 0, n, values.data());
        Tensor want(DType::kF32, {rows, n});
        linear(rank.ctx, {x, &whole, nullptr, want, {}});

        const std::vector<comm::LeafRange> runs = comm::share_leaves(num_leaves, tp);
        const comm::TreeSchedule schedule = comm::make_tree_schedule(num_leaves, runs);
        std::vector<std::vector<float>> partial(schedule.nodes.size(),
                                                std::vector<float>(static_cast<size_t>(rows * n)));
        for (int r = 0; r < tp; ++r) {
          const comm::LeafRange run = runs[static_cast<size_t>(r)];
          const int64_t first = run.begin * head, local_k = run.size() * head;
          PackedWeight w = make_packed_weight(dtype, n, local_k,
                                              {all_leaves.begin(), all_leaves.begin() + run.size() + 1}, run.begin);
          for (int64_t row = 0; row < n; ++row) pack_rows(w, row, 1, values.data() + row * k + first);
          const std::vector<comm::LeafRange> nodes = comm::maximal_nodes(num_leaves, run);
          Tensor out(DType::kF32, {static_cast<int64_t>(nodes.size()) * rows, n});
          linear(rank.ctx, {MatrixView(x).columns(first, first + local_k), &w, nullptr, out, nodes});
          for (size_t i = 0; i < nodes.size(); ++i)
            std::copy_n(out.as<float>() + static_cast<int64_t>(i) * rows * n, rows * n,
                        partial[static_cast<size_t>(schedule.first_node[static_cast<size_t>(r)]) + i].begin());
        }
        for (const comm::TreeAdd& add : schedule.additions)
          for (size_t i = 0; i < partial[0].size(); ++i)
            partial[static_cast<size_t>(add.left)][i] += partial[static_cast<size_t>(add.right)][i];
        ASSERT_TRUE(same_bits(MatrixView(partial[0].data(), DType::kF32, rows, n, n), want));
      }
}

}  // namespace
}  // namespace chorale::worker
