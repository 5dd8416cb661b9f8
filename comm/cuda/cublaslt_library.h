// cuBLASLt as a table of its functions, found at run time and never linked: the program starts without it, and the
// matrix products of our own serve where it is not. Called by the GPU's linear ops and by doctor; the types are
// cublasLt.h's.
#pragma once

#include <cublasLt.h>

#include <string>

#include "comm/base/error.h"

// Every function of cuBLASLt that the project calls: the member and cublasLt##name.
#define CHORALE_CUBLASLT_FUNCTIONS(X)                               \
  X(get_version, GetVersion)                                        \
  X(get_status_string, GetStatusString)                             \
  X(create, Create)                                                 \
  X(destroy, Destroy)                                               \
  X(matmul, Matmul)                                                 \
  X(matmul_algo_get_heuristic, MatmulAlgoGetHeuristic)              \
  X(matmul_algo_get_ids, MatmulAlgoGetIds)                          \
  X(matmul_algo_init, MatmulAlgoInit)                               \
  X(matmul_algo_check, MatmulAlgoCheck)                             \
  X(matmul_algo_cap_get_attribute, MatmulAlgoCapGetAttribute)       \
  X(matmul_algo_config_get_attribute, MatmulAlgoConfigGetAttribute) \
  X(matmul_algo_config_set_attribute, MatmulAlgoConfigSetAttribute) \
  X(matmul_desc_create, MatmulDescCreate)                           \
  X(matmul_desc_destroy, MatmulDescDestroy)                         \
  X(matmul_desc_set_attribute, MatmulDescSetAttribute)              \
  X(matrix_layout_create, MatrixLayoutCreate)                       \
  X(matrix_layout_destroy, MatrixLayoutDestroy)                     \
  X(matrix_layout_set_attribute, MatrixLayoutSetAttribute)          \
  X(matmul_preference_create, MatmulPreferenceCreate)               \
  X(matmul_preference_destroy, MatmulPreferenceDestroy)             \
  X(matmul_preference_set_attribute, MatmulPreferenceSetAttribute)

namespace chorale {

struct CublasLt {
#define CHORALE_MEMBER(member, name) decltype(&cublasLt##name) member = nullptr;
  CHORALE_CUBLASLT_FUNCTIONS(CHORALE_MEMBER)
#undef CHORALE_MEMBER
  std::string path;     // of the library
  std::string version;  // "13.1.0": part of the numerics class where its products count
};

/// Looked for once; the library stays open. Thread: any.
const Result<CublasLt>& find_cublaslt();

/// The table of one given library file. Its version must be that of the headers this was built with or 12.
Result<CublasLt> load_cublaslt(const std::string& path);

/// Throws Error{kSystem} naming the call.
void check_cublaslt(const CublasLt& library, cublasStatus_t status, const char* call);

}  // namespace chorale
