// cuBLASLt as a table of its functions, found at run time and never linked: the program starts without it, and the
// matrix products of our own serve where it is not. Called by the GPU's linear ops, by what a worker says of itself and
// by doctor; builds without CUDA, since the emulator's tests use it too.
#pragma once

#include <string>

#include "comm/base/device.h"
#include "comm/base/error.h"
#include "comm/cuda/cublaslt_types.h"

// Every function of cuBLASLt that the project calls: the member, cublasLt##name, and its arguments.
#define CHORALE_CUBLASLT_FUNCTIONS(X)                                                                            \
  X(size_t, get_version, GetVersion, ())                                                                         \
  X(const char*, get_status_string, GetStatusString, (Status))                                                   \
  X(Status, create, Create, (Handle*))                                                                           \
  X(Status, destroy, Destroy, (Handle))                                                                          \
  X(Status, matmul, Matmul,                                                                                      \
    (Handle, MatmulDesc, const void* alpha, const void* a, MatrixLayout, const void* b, MatrixLayout,            \
     const void* beta, const void* c, MatrixLayout, void* d, MatrixLayout, const Algorithm*, void* workspace,    \
     size_t workspace_bytes, Stream))                                                                            \
  X(Status, matmul_algo_get_heuristic, MatmulAlgoGetHeuristic,                                                   \
    (Handle, MatmulDesc, MatrixLayout a, MatrixLayout b, MatrixLayout c, MatrixLayout d, Preference, int most,   \
     HeuristicResult*, int* num_results))                                                                        \
  X(Status, matmul_algo_config_get_attribute, MatmulAlgoConfigGetAttribute,                                      \
    (const Algorithm*, int attribute, void* value, size_t bytes, size_t* bytes_written))                         \
  X(Status, matmul_desc_create, MatmulDescCreate, (MatmulDesc*, int compute_type, int scale_type))               \
  X(Status, matmul_desc_destroy, MatmulDescDestroy, (MatmulDesc))                                                \
  X(Status, matmul_desc_set_attribute, MatmulDescSetAttribute, (MatmulDesc, int attribute, const void*, size_t)) \
  X(Status, matrix_layout_create, MatrixLayoutCreate,                                                            \
    (MatrixLayout*, int type, uint64_t rows, uint64_t columns, int64_t leading_dim))                             \
  X(Status, matrix_layout_destroy, MatrixLayoutDestroy, (MatrixLayout))                                          \
  X(Status, matmul_preference_create, MatmulPreferenceCreate, (Preference*))                                     \
  X(Status, matmul_preference_destroy, MatmulPreferenceDestroy, (Preference))                                    \
  X(Status, matmul_preference_set_attribute, MatmulPreferenceSetAttribute,                                       \
    (Preference, int attribute, const void*, size_t))

namespace chorale {

namespace cublaslt {
#define CHORALE_FUNCTION(result, member, name, arguments) using name##Function = result(*) arguments;
CHORALE_CUBLASLT_FUNCTIONS(CHORALE_FUNCTION)
#undef CHORALE_FUNCTION
}  // namespace cublaslt

struct CublasLt {
#define CHORALE_MEMBER(result, member, name, arguments) cublaslt::name##Function member = nullptr;
  CHORALE_CUBLASLT_FUNCTIONS(CHORALE_MEMBER)
#undef CHORALE_MEMBER
  std::string path;     // of the library
  std::string version;  // "13.1.0": part of the numerics class where its products count
};

/// Looked for once; the library stays open. Thread: any.
const Result<CublasLt>& find_cublaslt();

/// The table of one given library file. Its version must be 12 or 13.
Result<CublasLt> load_cublaslt(const std::string& path);

/// The version that a rank on `kind` could multiply with; "" where there is none. The emulator has one where
/// CHORALE_CUBLASLT_PATH names it, for tests: a library that multiplies in host memory.
std::string cublaslt_version(DeviceKind kind);
/// Why there is none, in words for the user; "" where there is one.
std::string cublaslt_problem(DeviceKind kind);

/// Throws Error{kSystem} naming the call.
void check_cublaslt(const CublasLt& library, cublaslt::Status status, const char* call);

}  // namespace chorale
