// Compiled where CUDA is found: what cublaslt_types.h says is what cublasLt.h says.
#include <cublasLt.h>

#include "comm/cuda/cublaslt_types.h"

namespace chorale::cublaslt {

static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t));
static_assert(sizeof(HeuristicResult) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(HeuristicResult, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(sizeof(Status) == sizeof(cublasStatus_t) && kSuccess == CUBLAS_STATUS_SUCCESS);
static_assert(kCompute32F == CUBLAS_COMPUTE_32F && kTransposed == CUBLAS_OP_T);
static_assert(kReal32F == CUDA_R_32F && kReal16F == CUDA_R_16F && kReal16BF == CUDA_R_16BF);
static_assert(kDescTransposeA == CUBLASLT_MATMUL_DESC_TRANSA);
static_assert(kPreferenceWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(kPreferenceReductionSchemes == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
static_assert(kPreferenceAlignments[0] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
static_assert(kPreferenceAlignments[1] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
static_assert(kPreferenceAlignments[2] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
static_assert(kPreferenceAlignments[3] == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
static_assert(kConfigSplits == CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
static_assert(kConfigReduction == CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
static_assert(kReductionNone == CUBLASLT_REDUCTION_SCHEME_NONE && kReductionAny == CUBLASLT_REDUCTION_SCHEME_MASK);

}  // namespace chorale::cublaslt
