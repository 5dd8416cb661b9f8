// The few types and numbers of cuBLASLt's interface that the project uses, declared anew from its documentation (cuBLAS
// library, "Using the cuBLASLt API"), so that its callers build where there is no CUDA. cublaslt_types_check.cc
// compares them with cublasLt.h where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chorale::cublaslt {

using Handle = struct HandleOpaque*;
using MatmulDesc = struct MatmulDescOpaque*;
using MatrixLayout = struct MatrixLayoutOpaque*;
using Preference = struct PreferenceOpaque*;
using Stream = void*;  // cudaStream_t
using Status = int;

/// An algorithm with its configuration: plain data.
struct Algorithm {
  uint64_t data[8] = {};
};
struct HeuristicResult {
  Algorithm algorithm;
  size_t workspace_bytes = 0;
  Status state = 0;
  float waves = 0;
  int reserved[4] = {};
};

constexpr Status kSuccess = 0;
constexpr int kCompute32F = 68;                            // cublasComputeType_t
constexpr int kReal32F = 0, kReal16F = 2, kReal16BF = 14;  // cudaDataType
constexpr int32_t kTransposed = 1;                         // cublasOperation_t
constexpr int kDescTransposeA = 3;                         // cublasLtMatmulDescAttributes_t, int32_t
constexpr int kPreferenceWorkspaceBytes = 1;               // cublasLtMatmulPreferenceAttributes_t, uint64_t
constexpr int kPreferenceReductionSchemes = 3;             // likewise, uint32_t, a mask
constexpr int kPreferenceAlignments[] = {5, 6, 7, 8};   // likewise, uint32_t: bytes that a, b, c and d are aligned to
constexpr int kConfigSplits = 2, kConfigReduction = 3;  // cublasLtMatmulAlgoConfigAttributes_t: int32_t, uint32_t
constexpr uint32_t kReductionNone = 0, kReductionAny = 7;  // cublasLtReductionScheme_t, a mask

}  // namespace chorale::cublaslt
