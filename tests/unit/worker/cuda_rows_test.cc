// Kernels for CUDA that work row by row: the scalar CPU kernel's bits over odd sizes, in every thread order.
#include "tests/unit/worker/device_test_support.h"
#include "worker/ops/rms_norm.h"

namespace chorale::worker {
namespace {

const std::vector<int64_t> kSizes{1, 3, 15, 16, 17, 31, 48, 100, 127, 576, 2050};

/// The scalar CPU kernel's answer and each device kernel's, compared bit for bit. `args` hold device memory but for
/// `out`.
template <typename Args>
void expect_cpu_bits(TestDevice& device, const Args& on_host, Args on_device, MatrixView Args::*out,
                     const Tensor& initial) {
  Args host = on_host;
  Tensor want = initial.clone();
  host.*out = want;
  launch_scalar(device.cpu(), host);
  const int count = for_each_device_kernel(device, on_device, [&](const Kernel<Args>& kernel) {
    Tensor got = device.upload(initial);
    on_device.*out = got;
    kernel.launch(device.ctx(), on_device);
    EXPECT_TRUE(same_bits(device.download(got), want)) << "columns " << (host.*out).cols;
  });
  EXPECT_GT(count, 0) << "no kernel for this device";
}

TEST(CudaRows, RmsNorm) {
  TestDevice device;
  for (int64_t n : kSizes)
    for (DType dtype : {DType::kF32, DType::kBF16})
      for (int64_t groups : {1, 3}) {
        const Tensor x = random_tensor(DType::kF32, {5, groups * n}, 1), out(dtype, {5, groups * n});
        const std::vector<float> weight = random_floats(n, 3);
        const Tensor device_x = device.upload(x), device_weight = device.upload(weight);
        expect_cpu_bits(device, RmsNormArgs{x, weight.data(), n, 1e-5f, {}},
                        RmsNormArgs{device_x, device_weight.as<float>(), n, 1e-5f, {}}, &RmsNormArgs::out, out);
      }
}

}  // namespace
}  // namespace chorale::worker
