// Norms, element-wise ops, rope and logits: every vector kernel gives the scalar reference's bits over odd sizes, and
// the reference is close to the formula in float64.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/unit/worker/op_test_support.h"
#include "worker/ops/activation.h"
#include "worker/ops/add_residual.h"
#include "worker/ops/cast.h"
#include "worker/ops/embedding.h"
#include "worker/ops/layer_norm.h"
#include "worker/ops/logits.h"
#include "worker/ops/rms_norm.h"
#include "worker/ops/rope.h"
#include "worker/ops/silu_mul.h"

namespace chorale::worker {
namespace {

constexpr int64_t kRows = 5;
const std::vector<int64_t> kSizes{1, 3, 15, 16, 17, 31, 48, 100, 127, 576, 2050, 4100};

/// Runs the scalar kernel into one copy of `out` and every vector kernel into another, and compares the copies.
template <typename Args>
void expect_same_bits(TestRank& rank, Args args, MatrixView Args::*out, const Tensor& initial) {
  Tensor want = initial.clone();
  args.*out = want;
  launch_scalar(rank.ctx, args);
  for_each_vector_kernel(rank.ctx, args, [&](const Kernel<Args>& kernel) {
    Tensor got = initial.clone();
    args.*out = got;
    kernel.launch(rank.ctx, args);
    EXPECT_TRUE(same_bits(got, want)) << "columns " << (args.*out).cols;
  });
}

TEST(RowOps, KernelsGiveTheBitsOfTheScalarReference) {
  TestRank rank(3);
  for (int64_t n : kSizes) {
    const Tensor x = random_tensor(DType::kF32, {kRows, n}, 1), y = random_tensor(DType::kF32, {kRows, n}, 2);
    const std::vector<float> weight = random_floats(n, 3), bias = random_floats(n, 4);
    const Tensor residual = random_tensor(DType::kF32, {kRows, n}, 5);
    expect_same_bits(rank, AddResidualArgs{{}, x, bias.data()}, &AddResidualArgs::residual, residual);
    expect_same_bits(rank, AddResidualArgs{{}, x, nullptr}, &AddResidualArgs::residual, residual);
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const Tensor out(dtype, {kRows, n});
      expect_same_bits(rank, RmsNormArgs{x, weight.data(), n, 1e-5f, {}}, &RmsNormArgs::out, out);
      if (n % 5 == 0) expect_same_bits(rank, RmsNormArgs{x, weight.data(), n / 5, 1e-6f, {}}, &RmsNormArgs::out, out);
      expect_same_bits(rank, LayerNormArgs{x, weight.data(), bias.data(), 1e-5f, {}}, &LayerNormArgs::out, out);
      expect_same_bits(rank, LayerNormArgs{x, weight.data(), nullptr, 1e-5f, {}}, &LayerNormArgs::out, out);
      expect_same_bits(rank, SiluMulArgs{x, y, {}}, &SiluMulArgs::out, out);
      expect_same_bits(rank, CastArgs{x, {}}, &CastArgs::out, out);
      for (auto f : {parallel::Activation::kSilu, parallel::Activation::kGeluTanh, parallel::Activation::kGelu,
                     parallel::Activation::kRelu})
        expect_same_bits(rank, ActivationArgs{f, x, {}}, &ActivationArgs::out, out);
    }
    expect_same_bits(rank, CastArgs{random_tensor(DType::kBF16, {kRows, n}, 6), {}}, &CastArgs::out,
                     Tensor(DType::kF32, {kRows, n}));
  }
}

/// The elementary functions over their whole range, through ops that show them unchanged.
TEST(RowOps, VectorFunctionsEqualTheScalarOnes) {
  TestRank rank(1);
  const int64_t n = 300000;
  Tensor x(DType::kF32, {1, n});
  for (int64_t i = 0; i < n; ++i) x.as<float>()[i] = std::bit_cast<float>(static_cast<uint32_t>(i) * 14317u);
  for (int64_t i = 0; i < n; ++i)
    if (std::isnan(x.as<float>()[i])) x.as<float>()[i] = static_cast<float>(i) * 0.001f;
  for (auto f : {parallel::Activation::kSilu, parallel::Activation::kGeluTanh, parallel::Activation::kGelu})
    expect_same_bits(rank, ActivationArgs{f, x, {}}, &ActivationArgs::out, Tensor(DType::kF32, {1, n}));
}

TEST(RowOps, EmbeddingGathersAndAdds) {
  TestRank rank(2);
  const std::vector<int32_t> ids{3, 0, 3, 6, 1};
  for (int64_t n : kSizes)
    for (DType dtype : {DType::kF32, DType::kBF16})
      for (auto mode : {EmbeddingMode::kStore, EmbeddingMode::kAdd}) {
        const Tensor table = random_tensor(dtype, {7, n}, 1), initial = random_tensor(DType::kF32, {kRows, n}, 2);
        expect_same_bits(rank, EmbeddingArgs{ids.data(), table, {}, mode}, &EmbeddingArgs::out, initial);
      }
  Tensor table(DType::kF16, {2, 3}), out(DType::kF32, {1, 3});
  static_cast<Float16*>(table.view().data)[4] = {0xc000};  // -2
  const int32_t id = 1;
  embedding(rank.ctx, {&id, table, out});
  EXPECT_EQ(out.as<float>()[1], -2.0f);
}

TEST(RowOps, RopeTurnsPairs) {
  TestRank rank(2);
  for (int64_t half : {1, 4, 8, 16, 20, 64}) {
    std::vector<double> inv_freq;
    for (int64_t i = 0; i < half; ++i)
      inv_freq.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
    const RopeTable table = make_rope_table(inv_freq, 5000, 1.5);
    const int64_t head_dim = 2 * half + (half == 4 ? 3 : 0);
    const std::vector<int32_t> positions{0, 1, 77, 4999, 512};
    const Tensor x = random_tensor(DType::kF32, {kRows, 3 * head_dim}, 1);
    for (auto pairing : {RopePairing::kHalf, RopePairing::kInterleaved}) {
      RopeArgs args{{}, positions.data(), table.cos, table.sin, head_dim, pairing};
      expect_same_bits(rank, args, &RopeArgs::x, x);
      Tensor turned = x.clone();
      args.x = turned;
      rope(rank.ctx, args);
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t c = 0; c < 3 * head_dim; ++c) {
          const int64_t head = c / head_dim * head_dim, i = c % head_dim;
          const bool interleaved = pairing == RopePairing::kInterleaved;
          double want = x.as<float>()[r * 3 * head_dim + c];
          if (i < 2 * half) {
            const int64_t pair = interleaved ? i / 2 : i % half;
            const bool second = interleaved ? i % 2 == 1 : i >= half;
            const double angle = positions[static_cast<size_t>(r)] * inv_freq[static_cast<size_t>(pair)];
            const double a = x.as<float>()[r * 3 * head_dim + head + (interleaved ? 2 * pair : pair)];
            const double b = x.as<float>()[r * 3 * head_dim + head + (interleaved ? 2 * pair + 1 : pair + half)];
            want =
                1.5 * (second ? b * std::cos(angle) + a * std::sin(angle) : a * std::cos(angle) - b * std::sin(angle));
          }
          ASSERT_NEAR(turned.as<float>()[r * 3 * head_dim + c], want, 4 * 1.5 * 0x1p-23);
        }
    }
  }
}

TEST(RowOps, NormsAndActivationsAreCloseToFloat64) {
  TestRank rank(1, parallel::best_isa(DType::kF32));
  const int64_t n = 1000;
  const Tensor x = random_tensor(DType::kF32, {1, n}, 1);
  const std::vector<float> weight = random_floats(n, 2), bias = random_floats(n, 3);
  Tensor out(DType::kF32, {1, n});
  double sum = 0, square = 0;
  for (int64_t i = 0; i < n; ++i) sum += x.as<float>()[i], square += std::pow(x.as<float>()[i], 2.0);
  const double mean = sum / n, variance = square / n - mean * mean;
  rms_norm(rank.ctx, {x, weight.data(), n, 1e-5f, out});
  for (int64_t i = 0; i < n; ++i)
    ASSERT_NEAR(out.as<float>()[i], x.as<float>()[i] / std::sqrt(square / n + 1e-5) * weight[static_cast<size_t>(i)],
                70 * 0x1p-24 * 2);
  layer_norm(rank.ctx, {x, weight.data(), bias.data(), 1e-5f, out});
  for (int64_t i = 0; i < n; ++i) {
    const double y = (x.as<float>()[i] - mean) / std::sqrt(variance + 1e-5);
    ASSERT_NEAR(out.as<float>()[i], y * weight[static_cast<size_t>(i)] + bias[static_cast<size_t>(i)],
                140 * 0x1p-24 * 2);
  }
  activation(rank.ctx, {parallel::Activation::kGelu, x, out});
  for (int64_t i = 0; i < n; ++i) {
    const double v = x.as<float>()[i];
    ASSERT_NEAR(out.as<float>()[i], 0.5 * v * (1 + std::erf(v / std::sqrt(2.0))), 4e-7);
  }
  activation(rank.ctx, {parallel::Activation::kGeluTanh, x, out});
  for (int64_t i = 0; i < n; ++i) {
    const double v = x.as<float>()[i];
    ASSERT_NEAR(out.as<float>()[i], 0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))), 4e-7);
  }
}

TEST(Logits, StatsAreTheSameForEveryKernelAndEverySliceOfTheVocabulary) {
  for (int64_t n : {1, 17, 1023, 1024, 1025, 5000}) {
    TestRank rank(2);
    Tensor logits = random_tensor(DType::kF32, {3, n}, 1);
    for (int64_t i = 0; i < n; i += 7) logits.as<float>()[i] = -std::numeric_limits<float>::infinity();
    const int64_t chunks = (n + kVocabChunk - 1) / kVocabChunk;
    std::vector<SoftmaxStats> want(static_cast<size_t>(3 * chunks)), got = want;
    launch_scalar(rank.ctx, LogitStatsArgs{logits, want.data()});
    const LogitStatsArgs args{logits, got.data()};
    for_each_vector_kernel(rank.ctx, args, [&](const Kernel<LogitStatsArgs>& kernel) {
      kernel.launch(rank.ctx, args);
      EXPECT_EQ(std::memcmp(want.data(), got.data(), want.size() * sizeof(SoftmaxStats)), 0);
    });
    for (int64_t r = 0; r < 3; ++r) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits.as<float>()[r * n + i]));
      if (sum == 0) continue;  // every id masked
      const auto chunk_stats = std::span(want).subspan(static_cast<size_t>(r * chunks), static_cast<size_t>(chunks));
      EXPECT_NEAR(fold_log_sum_exp(chunk_stats), std::log(sum), 2e-6);
    }
    if (n == 5000) {  // two ranks: ids below and from 2048
      std::vector<SoftmaxStats> left(2), right(3);
      const MatrixView row = MatrixView(logits).row_range(1, 2);
      logit_stats(rank.ctx, {row.columns(0, 2048), left.data()});
      logit_stats(rank.ctx, {row.columns(2048, n), right.data()});
      EXPECT_EQ(std::memcmp(want.data() + chunks, left.data(), 2 * sizeof(SoftmaxStats)), 0);
      EXPECT_EQ(std::memcmp(want.data() + chunks + 2, right.data(), 3 * sizeof(SoftmaxStats)), 0);
    }
  }
}

TEST(Logits, TopKOrdersByLogitThenId) {
  TestRank rank(2);
  const int64_t n = 3001;
  Tensor logits = random_tensor(DType::kF32, {2, n}, 1);
  for (int64_t i = 0; i < 2 * n; ++i) logits.as<float>()[i] = std::round(logits.as<float>()[i] * 50.0f);  // many ties
  logits.as<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  for (int64_t k : {int64_t{1}, int64_t{2}, int64_t{20}, n}) {
    std::vector<int32_t> order(static_cast<size_t>(n)), ids(static_cast<size_t>(2 * k));
    std::vector<float> values(static_cast<size_t>(2 * k));
    const TopKArgs args{logits, k, ids.data(), values.data()};
    const auto check = [&] {
      for (int64_t r = 0; r < 2; ++r) {
        const float* row = logits.as<float>() + r * n;
        const auto value = [row](int32_t id) {
          return std::isnan(row[id]) ? -std::numeric_limits<float>::infinity() : row[id];
        };
        for (int64_t i = 0; i < n; ++i) order[static_cast<size_t>(i)] = static_cast<int32_t>(i);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
        ASSERT_TRUE(std::equal(ids.begin() + r * k, ids.begin() + (r + 1) * k, order.begin())) << "k " << k;
      }
    };
    launch_scalar(rank.ctx, args);
    check();
    for_each_vector_kernel(rank.ctx, args, [&](const Kernel<TopKArgs>& kernel) {
      std::fill(ids.begin(), ids.end(), -1);
      kernel.launch(rank.ctx, args);
      check();
    });
  }
}

}  // namespace
}  // namespace chorale::worker
