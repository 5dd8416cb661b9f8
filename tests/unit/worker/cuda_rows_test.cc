// Kernels for CUDA that work row by row: the scalar CPU kernel's bits over odd sizes and parts of wider rows, in every
// thread order.
#include <bit>
#include <cmath>
#include <limits>

#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/activation.h"
#include "worker/ops/add_residual.h"
#include "worker/ops/cast.h"
#include "worker/ops/embedding.h"
#include "worker/ops/layer_norm.h"
#include "worker/ops/residual_norm.h"
#include "worker/ops/rms_norm.h"
#include "worker/ops/rope.h"
#include "worker/ops/silu_mul.h"

namespace chorale::worker {
namespace {

const std::vector<int64_t> kSizes{1, 3, 15, 16, 17, 31, 48, 100, 127, 576, 1026, 2050};
constexpr DType kComputeTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

/// The scalar CPU kernel's answer and each device kernel's, compared bit for bit. `args` hold device memory but for
/// `out`, which is columns [begin, end) of a copy of `initial`; what stands beside them must stay.
template <typename Args>
void expect_cpu_bits_in(TestDevice& device, const Args& on_host, Args on_device, MatrixView Args::*out,
                        const Tensor& initial, int64_t begin, int64_t end) {
  Args host = on_host;
  Tensor want = initial.clone();
  host.*out = MatrixView(want).columns(begin, end);
  launch_scalar(device.cpu(), host);
  const int count = for_each_device_kernel(device, on_device, [&](const Kernel<Args>& kernel) {
    Tensor got = device.upload(initial);
    on_device.*out = MatrixView(got).columns(begin, end);
    kernel.launch(device.ctx(), on_device);
    EXPECT_TRUE(same_bits(device.download(got), want)) << "columns " << begin << " to " << end;
  });
  EXPECT_GT(count, 0) << "no kernel for this device";
}
template <typename Args>
void expect_cpu_bits(TestDevice& device, const Args& on_host, const Args& on_device, MatrixView Args::*out,
                     const Tensor& initial) {
  expect_cpu_bits_in(device, on_host, on_device, out, initial, 0, MatrixView(initial).cols);
}

/// Floats on the host and on the device.
struct Both {
  Both(TestDevice& device, std::vector<float> floats) : host(std::move(floats)), device(device.upload(host)) {}
  std::vector<float> host;
  Tensor device;
};

TEST(CudaRows, RmsNorm) {
  TestDevice device;
  for (int64_t n : kSizes) {
    const Both weight(device, random_floats(n, 3));
    for (DType dtype : kComputeTypes)
      for (int64_t groups : {1, 3}) {
        const Tensor x = random_tensor(DType::kF32, {5, groups * n}, 1), out(dtype, {5, groups * n});
        const Tensor device_x = device.upload(x);
        expect_cpu_bits(device, RmsNormArgs{x, weight.host.data(), n, 1e-5f, {}},
                        RmsNormArgs{device_x, weight.device.as<float>(), n, 1e-5f, {}}, &RmsNormArgs::out, out);
      }
  }
}

TEST(CudaRows, LayerNorm) {
  TestDevice device;
  for (int64_t n : kSizes) {
    const Both weight(device, random_floats(n, 3)), bias(device, random_floats(n, 4));
    const Tensor x = random_tensor(DType::kF32, {4, n}, 1), device_x = device.upload(x);
    for (DType dtype : kComputeTypes) {
      const Tensor out(dtype, {4, n});
      expect_cpu_bits(device, LayerNormArgs{x, weight.host.data(), bias.host.data(), 1e-5f, {}},
                      LayerNormArgs{device_x, weight.device.as<float>(), bias.device.as<float>(), 1e-5f, {}},
                      &LayerNormArgs::out, out);
      expect_cpu_bits(device, LayerNormArgs{x, weight.host.data(), nullptr, 1e-6f, {}},
                      LayerNormArgs{device_x, weight.device.as<float>(), nullptr, 1e-6f, {}}, &LayerNormArgs::out, out);
    }
  }
}

/// Rows that do not fit into shared memory, heads inside a wider buffer, and a norm in place.
TEST(CudaRows, NormsOfLongRowsOfHeadsAndInPlace) {
  TestDevice device;
  const int64_t n = 16500;
  const Both weight(device, random_floats(n, 3)), bias(device, random_floats(n, 4));
  const Tensor x = random_tensor(DType::kF32, {1, n}, 1), device_x = device.upload(x), out(DType::kF32, {1, n});
  expect_cpu_bits(device, RmsNormArgs{x, weight.host.data(), n, 1e-5f, {}},
                  RmsNormArgs{device_x, weight.device.as<float>(), n, 1e-5f, {}}, &RmsNormArgs::out, out);
  expect_cpu_bits(device, LayerNormArgs{x, weight.host.data(), bias.host.data(), 1e-5f, {}},
                  LayerNormArgs{device_x, weight.device.as<float>(), bias.device.as<float>(), 1e-5f, {}},
                  &LayerNormArgs::out, out);

  for (int64_t begin : {int64_t{0}, int64_t{64}, int64_t{3}}) {
    const Tensor wide = random_tensor(DType::kF32, {3, 400}, 5), device_wide = device.upload(wide);
    const RmsNormArgs host{MatrixView(wide).columns(begin, begin + 192), weight.host.data(), 64, 1e-5f, {}};
    const RmsNormArgs there{
        MatrixView(device_wide).columns(begin, begin + 192), weight.device.as<float>(), 64, 1e-5f, {}};
    expect_cpu_bits_in(device, host, there, &RmsNormArgs::out, Tensor(DType::kBF16, {3, 200}), 5, 197);

    Tensor want = wide.clone(), got = device.upload(wide);
    RmsNormArgs in_place = host;
    in_place.x = in_place.out = MatrixView(want).columns(begin, begin + 192);
    launch_scalar(device.cpu(), in_place);
    in_place.weight = weight.device.as<float>();
    in_place.x = in_place.out = MatrixView(got).columns(begin, begin + 192);
    rms_norm(device.ctx(), in_place);
    EXPECT_TRUE(same_bits(device.download(got), want)) << begin;
  }
}

TEST(CudaRows, ResidualNormIsItsTwoPartsInOne) {
  TestDevice device;
  for (int64_t n : {1, 17, 100, 576, 2050, 16500}) {
    const Both weight(device, random_floats(n, 3)), bias(device, random_floats(n, 4));
    const Both sum_bias(device, random_floats(n, 7));
    const Tensor before = random_tensor(DType::kF32, {3, n}, 1), sum = random_tensor(DType::kF32, {3, n}, 2);
    const Tensor device_sum = device.upload(sum);
    for (auto kind : {parallel::NormKind::kRms, parallel::NormKind::kLayer})
      for (DType dtype : kComputeTypes)
        for (bool with_bias : {false, true}) {
          const bool is_layer = kind == parallel::NormKind::kLayer;
          Tensor parts = before.clone(), want(dtype, {3, n});
          add_residual(device.cpu(), {parts, sum, with_bias ? sum_bias.host.data() : nullptr});
          if (is_layer)
            launch_scalar(device.cpu(), LayerNormArgs{parts, weight.host.data(), with_bias ? bias.host.data() : nullptr,
                                                      1e-5f, want});
          else
            launch_scalar(device.cpu(), RmsNormArgs{parts, weight.host.data(), n, 1e-5f, want});

          if (dtype != DType::kF16) {  // which CPUs do not compute in
            Tensor residual = before.clone(), out(dtype, {3, n});
            residual_norm(device.cpu(),
                          {kind, residual, sum, with_bias ? sum_bias.host.data() : nullptr, weight.host.data(),
                           is_layer && with_bias ? bias.host.data() : nullptr, 1e-5f, out});
            EXPECT_TRUE(same_bits(residual, parts));
            EXPECT_TRUE(same_bits(out, want));
          }

          ResidualNormArgs args{kind,
                                {},
                                device_sum,
                                with_bias ? sum_bias.device.as<float>() : nullptr,
                                weight.device.as<float>(),
                                is_layer && with_bias ? bias.device.as<float>() : nullptr,
                                1e-5f,
                                {}};
          const int count = for_each_device_kernel(device, args, [&](const Kernel<ResidualNormArgs>& kernel) {
            Tensor got_residual = device.upload(before), got(device.device(), dtype, {3, n});
            args.residual = got_residual;
            args.out = got;
            kernel.launch(device.ctx(), args);
            EXPECT_TRUE(same_bits(device.download(got_residual), parts)) << n;
            EXPECT_TRUE(same_bits(device.download(got), want)) << n;
          });
          EXPECT_GT(count, 0);
        }
  }
}

TEST(CudaRows, AddResidual) {
  TestDevice device;
  for (int64_t n : kSizes) {
    const Both bias(device, random_floats(n, 4));
    const Tensor sum = random_tensor(DType::kF32, {5, n}, 1), residual = random_tensor(DType::kF32, {5, n}, 2);
    const Tensor device_sum = device.upload(sum);
    expect_cpu_bits(device, AddResidualArgs{{}, sum, bias.host.data()},
                    AddResidualArgs{{}, device_sum, bias.device.as<float>()}, &AddResidualArgs::residual, residual);
    expect_cpu_bits(device, AddResidualArgs{{}, sum, nullptr}, AddResidualArgs{{}, device_sum, nullptr},
                    &AddResidualArgs::residual, residual);
  }
}

TEST(CudaRows, SiluMulOfTheHalvesOfOneProduct) {
  TestDevice device;
  for (int64_t n : kSizes)
    for (DType dtype : kComputeTypes) {
      const Tensor both = random_tensor(DType::kF32, {3, 2 * n}, 1), device_both = device.upload(both);
      const auto args = [n](const Tensor& t) {
        return SiluMulArgs{MatrixView(t).columns(0, n), MatrixView(t).columns(n, 2 * n), {}};
      };
      expect_cpu_bits(device, args(both), args(device_both), &SiluMulArgs::out, Tensor(dtype, {3, n}));
      expect_cpu_bits_in(device, args(both), args(device_both), &SiluMulArgs::out, Tensor(dtype, {3, n + 9}), 4, n + 4);
    }
}

/// Every function over the range of float32, infinities included; NaN stays NaN.
TEST(CudaRows, Activation) {
  TestDevice device;
  const int64_t n = 20000;
  Tensor x(DType::kF32, {1, n});
  for (int64_t i = 0; i < n; ++i) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(i) * 214757u);
    x.as<float>()[i] = std::isnan(value) ? static_cast<float>(i) * 0.01f - 100.0f : value;
  }
  x.as<float>()[1] = kInf;
  x.as<float>()[2] = -kInf;
  const Tensor device_x = device.upload(x);
  const float nan[] = {kNan};
  const Tensor device_nan = device.upload(std::vector<float>(nan, nan + 1));
  for (auto f : {parallel::Activation::kSilu, parallel::Activation::kGeluTanh, parallel::Activation::kGelu,
                 parallel::Activation::kRelu}) {
    for (DType dtype : kComputeTypes) {
      const auto short_row = [](const Tensor& t, int64_t size) { return MatrixView(t).columns(0, size); };
      expect_cpu_bits(device, ActivationArgs{f, x, {}}, ActivationArgs{f, device_x, {}}, &ActivationArgs::out,
                      Tensor(dtype, {1, n}));
      for (int64_t size : kSizes)
        expect_cpu_bits(device, ActivationArgs{f, short_row(x, size), {}},
                        ActivationArgs{f, short_row(device_x, size), {}}, &ActivationArgs::out,
                        Tensor(dtype, {1, size}));
    }
    Tensor in_place = device.upload(x), want = x.clone();
    activation(device.ctx(), {f, in_place, in_place});
    activation(device.cpu(), {f, want, want});
    EXPECT_TRUE(same_bits(device.download(in_place), want));
    if (f == parallel::Activation::kRelu) continue;
    Tensor out(device.device(), DType::kF32, {1, 1});
    activation(device.ctx(), {f, device_nan, out});
    EXPECT_TRUE(std::isnan(device.download(out).as<float>()[0]));
  }
}

TEST(CudaRows, CastBetweenAllTypes) {
  TestDevice device;
  for (int64_t n : kSizes)
    for (DType from : {DType::kF32, DType::kBF16, DType::kF16})
      for (DType to : kComputeTypes) {
        Tensor x = random_tensor(from == DType::kF16 ? DType::kBF16 : from, {3, n + 5}, 1);
        if (from == DType::kF16) {
          Tensor half(DType::kF16, {3, n + 5});
          for (int64_t i = 0; i < 3 * (n + 5); ++i)
            half.as<Float16>()[i] = to_f16(to_float(x.as<BFloat16>()[i]) * (i % 7 == 0 ? 1e-5f : 100.0f));
          half.as<Float16>()[0] = {0x7c00}, half.as<Float16>()[1] = {0xfc00}, half.as<Float16>()[2] = {1};
          x = std::move(half);
        }
        const Tensor device_x = device.upload(x);
        for (int64_t begin : {0, 5}) {
          const auto args = [&](const Tensor& t) { return CastArgs{MatrixView(t).columns(begin, begin + n), {}}; };
          expect_cpu_bits(device, args(x), args(device_x), &CastArgs::out, Tensor(to, {3, n}));
          expect_cpu_bits_in(device, args(x), args(device_x), &CastArgs::out, Tensor(to, {3, n + 8}), 3, n + 3);
        }
      }
  // Ties to even, overflow, infinities, NaN.
  const std::vector<float> edges{1.00390625f, 1.01171875f, 3.4e38f, -3.4e38f, kInf, -kInf, -0.0f, kNan};
  const Both x(device, edges);
  Tensor out(device.device(), DType::kBF16, {1, 8}), want(DType::kBF16, {1, 8});
  cast(device.ctx(), {x.device, out});
  for (size_t i = 0; i < 8; ++i) want.as<BFloat16>()[i] = to_bf16(edges[i]);
  const Tensor got = device.download(out);
  EXPECT_TRUE(same_bits(MatrixView(got).columns(0, 7), MatrixView(want).columns(0, 7)));
  EXPECT_TRUE(std::isnan(to_float(got.as<BFloat16>()[7])));
}

TEST(CudaRows, EmbeddingGathersAndAdds) {
  TestDevice device;
  const std::vector<int32_t> ids{3, 0, 3, 6, 1};
  const Tensor device_ids = device.upload(ids);
  for (int64_t n : kSizes)
    for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
      for (auto mode : {EmbeddingMode::kStore, EmbeddingMode::kAdd}) {
        Tensor table = random_tensor(dtype == DType::kF16 ? DType::kBF16 : dtype, {7, n + 2}, 1);
        if (dtype == DType::kF16) {
          Tensor half(dtype, {7, n + 2});
          for (int64_t i = 0; i < 7 * (n + 2); ++i) half.as<Float16>()[i] = to_f16(to_float(table.as<BFloat16>()[i]));
          table = std::move(half);
        }
        const Tensor device_table = device.upload(table), initial = random_tensor(DType::kF32, {5, n}, 2);
        expect_cpu_bits(device, EmbeddingArgs{ids.data(), MatrixView(table).columns(0, n), {}, mode},
                        EmbeddingArgs{device_ids.as<int32_t>(), MatrixView(device_table).columns(0, n), {}, mode},
                        &EmbeddingArgs::out, initial);
      }
}

TEST(CudaRows, RopeTurnsPairsInsideAWiderBuffer) {
  TestDevice device;
  const std::vector<int32_t> positions{0, 1, 77, 499, 12};
  const Tensor device_positions = device.upload(positions);
  for (int64_t half : {1, 4, 8, 20, 64}) {
    std::vector<double> inv_freq;
    for (int64_t i = 0; i < half; ++i)
      inv_freq.push_back(std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half)));
    const RopeTable table = make_rope_table(inv_freq, 500, 1.5);
    const Tensor cos = device.upload(table.cos), sin = device.upload(table.sin);
    const int64_t head_dim = 2 * half + (half == 4 ? 3 : 0), cols = 3 * head_dim;
    const Tensor x = random_tensor(DType::kF32, {5, cols + 7}, 1);
    for (auto pairing : {RopePairing::kHalf, RopePairing::kInterleaved})
      expect_cpu_bits_in(device, RopeArgs{{}, positions.data(), table.cos, table.sin, head_dim, pairing},
                         RopeArgs{{}, device_positions.as<int32_t>(), cos, sin, head_dim, pairing}, &RopeArgs::x, x, 2,
                         cols + 2);
  }
}

}  // namespace
}  // namespace chorale::worker
