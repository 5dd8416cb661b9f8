// What a device can do at most, measured now: how fast it copies its own memory, how fast it multiplies bf16 matrices.
// `bench engine` and the kernels' bench print it beside their own numbers, as machine_probe.h's figures on CPUs;
// nothing that computes an answer reads it (N10).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "comm/base/device.h"

namespace chorale::worker {

struct DeviceSpeed {
  double copy_gbps = 0;  // 10^9 bytes, read and written, a second
  double bf16_gops = 0;  // 10^9 operations a second of a product with float32 sums and results; an fma is two
  std::string bf16_by;   // what multiplied: "cublaslt-13.1.0" where there is one, else "own"
};

/// x [rows, k] times W [n, k] transposed.
struct DeviceProbeSizes {
  size_t copy_bytes = size_t{1} << 30;  // far more than caches hold
  int64_t rows = 4096, n = 8192, k = 8192;
  int launches = 10;  // of each, after one that warms up; the best counts
};
/// Far smaller on the emulator, whose times mean nothing.
DeviceProbeSizes probe_sizes(DeviceKind kind);

/// Takes 2 x copy_bytes of the device's memory, or 2 (rows + n) k + 4 rows n, for some milliseconds, and gives all
/// back. Throws Error{kResourceExhausted} where there is not so much, Error{kSystem} of the device.
DeviceSpeed measure_device(DeviceStream where, const DeviceProbeSizes& sizes);
/// Of device `index`.
DeviceSpeed measure_device(DeviceKind kind, int index);

}  // namespace chorale::worker
