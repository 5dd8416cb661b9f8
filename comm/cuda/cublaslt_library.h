// cuBLASLt as a table of its functions, found at run time and never linked: the program starts without it, and the
// matrix products of our own serve where it is not. Called by the GPU's linear ops and by doctor; the types are
// cublasLt.h's.
#pragma once

#include <cublasLt.h>

#include <string>

#include "comm/base/error.h"

// Every function of cuBLASLt that the project calls: cublasLt##name.
#define CHORALE_CUBLASLT_FUNCTIONS(X) \
  X(GetVersion)                       \
  X(GetStatusString)                  \
  X(Create)                           \
  X(Destroy)                          \
  X(Matmul)                           \
  X(MatmulAlgoGetHeuristic)           \
  X(MatmulAlgoGetIds)                 \
  X(MatmulAlgoInit)                   \
  X(MatmulAlgoCheck)                  \
  X(MatmulAlgoCapGetAttribute)        \
  X(MatmulAlgoConfigGetAttribute)     \
  X(MatmulAlgoConfigSetAttribute)     \
  X(MatmulDescCreate)                 \
  X(MatmulDescDestroy)                \
  X(MatmulDescSetAttribute)           \
  X(MatrixLayoutCreate)               \
  X(MatrixLayoutDestroy)              \
  X(MatrixLayoutSetAttribute)         \
  X(MatmulPreferenceCreate)           \
  X(MatmulPreferenceDestroy)          \
  X(MatmulPreferenceSetAttribute)

namespace chorale {

struct CublasLt {
#define CHORALE_MEMBER(name) decltype(&cublasLt##name) name = nullptr;
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
