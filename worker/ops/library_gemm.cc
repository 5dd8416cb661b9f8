#include "worker/ops/library_gemm.h"

#include "comm/base/error.h"

namespace chorale::worker {

std::shared_ptr<const LibraryGemm> fit_library_gemm(std::string_view gemm, parallel::Answer answer,
                                                    const DeviceStream& where, const PackedWeight& weight) {
  const LibraryGemmEntry* entry = LibraryGemmRegistry::find(gemm.substr(0, gemm.find('-')));
  if (entry == nullptr)
    fail(ErrorCode::kUnsupported, "this build has no matrix products of {}; known: {}", gemm,
         LibraryGemmRegistry::names());
  return entry->fit(gemm, answer, where, weight);
}

}  // namespace chorale::worker
