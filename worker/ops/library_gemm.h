// A vendor's matrix product in the place of ours, for weights of one leaf in rows (WeightOrder::kRowMajor). The weight
// loader fits one to each shape; linear calls it. Which libraries there are is a table; this knows none.
#pragma once

#include <memory>
#include <string_view>

#include "comm/base/device.h"
#include "comm/base/registry.h"
#include "parallel/numerics.h"
#include "worker/ops/linear.h"

namespace chorale::worker {

/// For one shape [n, k]: one algorithm for 1 row and for many, or, for a fast answer, whatever the library proposes for
/// each number of rows. Thread: the rank's that fitted it.
class LibraryGemm {
 public:
  virtual ~LibraryGemm() = default;
  /// Throws Error{kSystem} where the library refuses.
  virtual void launch(OpContext& ctx, const LinearArgs& args) const = 0;
};

struct LibraryGemmEntry {
  std::string_view name;  // "cublaslt"
  std::shared_ptr<const LibraryGemm> (*fit)(std::string_view gemm, parallel::Answer answer, const DeviceStream& where,
                                            const PackedWeight& weight) = nullptr;
};
using LibraryGemmRegistry = Registry<LibraryGemmEntry>;

/// `gemm`: NumericsClass::gemm, its name before the first '-'. Throws Error{kUnsupported} where this rank does not have
/// that library in that version, or where one answer is wanted and a probe showed that its rows depend on each other.
std::shared_ptr<const LibraryGemm> fit_library_gemm(std::string_view gemm, parallel::Answer answer,
                                                    const DeviceStream& where, const PackedWeight& weight);

}  // namespace chorale::worker
