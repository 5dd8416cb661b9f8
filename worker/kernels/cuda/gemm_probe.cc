#include "worker/kernels/cuda/gemm_probe.h"

#include <chrono>
#include <cstring>
#include <vector>

#include <fmt/format.h>

namespace chorale::worker {
namespace {

constexpr std::chrono::minutes kDeadline{2};
constexpr int64_t kRowStep = 9;      // of the rows of a part that are compared: all places in a tile come up
constexpr int64_t kOutputStep = 16;  // parts begin where 16-byte words do

/// Numbers of -1 to 1 with all bits in use, the same on every rank.
Tensor make_input(const DeviceStream& where, DType dtype, int64_t rows, int64_t k) {
  Tensor host(dtype, {rows, k});
  auto* bits = static_cast<uint16_t*>(host.view().data);
  uint64_t state = 1;
  for (int64_t i = 0; i < rows * k; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;  // Knuth, MMIX
    const float value = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31F;
    bits[i] = dtype == DType::kBF16 ? to_bf16(value).bits : to_f16(value).bits;
  }
  return copy_to_device(where, host);
}

class Probe {
 public:
  Probe(const DeviceStream& where, const PackedWeight& weight, const GemmUnderProbe& multiply)
      : where_(where),
        n_(weight.n),
        multiply_(multiply),
        x_(make_input(where, weight.dtype, kMostGemmRows, weight.k)),
        out_(make_tensor(where.device, DType::kF32, {kMostGemmRows, weight.n})),
        whole_(static_cast<size_t>(kMostGemmRows * weight.n)),
        part_(static_cast<size_t>(weight.n)) {}

  std::string run() {
    if (std::string problem = multiply(kMostGemmRows, 0, n_); !problem.empty()) return problem;
    read(whole_.data(), 0, kMostGemmRows * n_);
    for (int64_t rows = 1; rows < kMostGemmRows; ++rows) {
      std::string problem = multiply(rows, 0, n_);
      if (problem.empty()) problem = compare(rows, rows - 1, 0, n_);
      if (problem.empty()) problem = compare(rows, rows * 3 / 7, 0, n_);
      if (!problem.empty()) return problem;
    }
    for (int64_t divisor : {2, 4}) {
      const int64_t size = n_ / divisor / kOutputStep * kOutputStep;
      if (size == 0) continue;
      const int64_t last = (n_ - size) / kOutputStep * kOutputStep;
      for (int64_t first : {int64_t{0}, last})
        for (int64_t rows : {int64_t{1}, int64_t{64}, kMostGemmRows}) {
          std::string problem = multiply(rows, first, size);
          for (int64_t row = rows - 1; row >= 0 && problem.empty(); row -= kRowStep)
            problem = compare(rows, row, first, size);
          if (!problem.empty()) return problem;
        }
    }
    return {};
  }

 private:
  std::string multiply(int64_t rows, int64_t first, int64_t size) {
    const MatrixView out(out_.view().data, DType::kF32, rows, size, size, where_.kind());
    return multiply_(MatrixView(x_).row_range(0, rows), first, out);
  }

  void read(float* to, int64_t offset, int64_t count) {
    where_.stream->copy(to, out_.as<float>() + offset, static_cast<size_t>(count) * sizeof(float),
                        CopyKind::kDeviceToHost);
    where_.stream->synchronize(Deadline::after(kDeadline));
  }

  /// Row `row` of a product of `rows` rows and outputs [first, first + size).
  std::string compare(int64_t rows, int64_t row, int64_t first, int64_t size) {
    read(part_.data(), row * size, size);
    const float* expected = whole_.data() + row * n_ + first;
    if (std::memcmp(part_.data(), expected, static_cast<size_t>(size) * sizeof(float)) == 0) return {};
    return fmt::format("row {} of {} x {} outputs has other bits than the same row of {} x {}", row, rows, size,
                       kMostGemmRows, n_);
  }

  DeviceStream where_;
  int64_t n_;
  const GemmUnderProbe& multiply_;
  Tensor x_;                  // [512, k]
  Tensor out_;                // [512, n]
  std::vector<float> whole_;  // [512, n] of one product
  std::vector<float> part_;   // a row
};

}  // namespace

std::string probe_gemm(const DeviceStream& where, const PackedWeight& weight, const GemmUnderProbe& multiply) {
  return Probe(where, weight, multiply).run();
}

}  // namespace chorale::worker
