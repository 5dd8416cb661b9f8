/* A library with cuBLASLt's names and nothing behind them, for the tests of finding it. FAKE_VERSION is what it says it is;
 * FAKE_MISSING leaves one function out. */
#include <stddef.h>

size_t cublasLtGetVersion(void) { return FAKE_VERSION; }
#define FAKE(name) \
  int cublasLt##name(void) { return 14; }
FAKE(GetStatusString)
FAKE(Create)
FAKE(Destroy)
#ifndef FAKE_MISSING
FAKE(Matmul)
#endif
FAKE(MatmulAlgoGetHeuristic)
FAKE(MatmulAlgoGetIds)
FAKE(MatmulAlgoInit)
FAKE(MatmulAlgoCheck)
FAKE(MatmulAlgoCapGetAttribute)
FAKE(MatmulAlgoConfigGetAttribute)
FAKE(MatmulAlgoConfigSetAttribute)
FAKE(MatmulDescCreate)
FAKE(MatmulDescDestroy)
FAKE(MatmulDescSetAttribute)
FAKE(MatrixLayoutCreate)
FAKE(MatrixLayoutDestroy)
FAKE(MatrixLayoutSetAttribute)
FAKE(MatmulPreferenceCreate)
FAKE(MatmulPreferenceDestroy)
FAKE(MatmulPreferenceSetAttribute)
