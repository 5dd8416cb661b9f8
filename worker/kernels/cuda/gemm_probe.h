// Finds out whether a vendor's matrix product keeps the contract (N1): the bits of an output must depend on its own row
// of x and its own row of W, not on how many rows or outputs stand beside it. Called when a rank loads its weights.
#pragma once

#include <functional>
#include <string>

#include "comm/base/device.h"
#include "worker/ops/matrix_view.h"
#include "worker/ops/packed_weight.h"

namespace chorale::worker {

/// The rows that a product is asked for at a time; more are cut.
constexpr int64_t kMostGemmRows = 512;

/// out [rows, num_outputs] = x [rows, k] times outputs [first, first + num_outputs) of the weight, given to the stream.
/// What went wrong, or "".
using GemmUnderProbe = std::function<std::string(MatrixView x, int64_t first, MatrixView out)>;

/// Compares with ==: for each number of rows in 1..512 its last row and one other with those of 512 rows; for the first
/// and the last half and quarter of the outputs 1, 64 and 512 rows with those of all outputs. Takes k + n times 512
/// elements of the device and n times 512 of the host. What differed or went wrong, or "".
std::string probe_gemm(const DeviceStream& where, const PackedWeight& weight, const GemmUnderProbe& multiply);

}  // namespace chorale::worker
