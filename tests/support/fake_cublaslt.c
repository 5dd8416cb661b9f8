/* A stand-in for cuBLASLt that multiplies bf16 matrices in host memory, for tests on the emulator, on whose stream it works. FAKE_VERSION is what it
 * says it is; FAKE_MISSING leaves one function out. It adds ascending in k, or, where FAKE_HALVES(outputs, rows) holds, each
 * half of k by itself: a library whose bits depend on the shape. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "comm/base/emulator_stream.h"

#ifndef FAKE_HALVES
#define FAKE_HALVES(outputs, rows) 0
#endif

enum { kInvalid = 7, kUnsupported = 15, kBf16 = 14, kF32 = 0, kTransposed = 1, kRowsAtOnce = 8, kSplits = 4, kSplitBytes = 4096, kWorkspaceAlignment = 256 };

typedef struct {
  int type;
  uint64_t rows, cols;
  int64_t ld;
} Layout;
typedef struct {
  int32_t transpose_a;
} Desc;
typedef struct {
  uint64_t data[8];
} Algorithm;
typedef struct {
  Algorithm algorithm;
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
} HeuristicResult;

size_t cublasLtGetVersion(void) { return FAKE_VERSION; }
const char* cublasLtGetStatusString(int status) { return status == kUnsupported ? "not supported" : "failed"; }
int cublasLtCreate(void** handle) { return (*handle = malloc(1)) == NULL; }
int cublasLtDestroy(void* handle) {
  free(handle);
  return 0;
}

int cublasLtMatmulDescCreate(Desc** desc, int compute, int scale) {
  *desc = calloc(1, sizeof(Desc));
  return compute == 68 && scale == kF32 ? 0 : kInvalid;
}
int cublasLtMatmulDescSetAttribute(Desc* desc, int attribute, const void* value, size_t bytes) {
  if (attribute != 3 || bytes != 4) return kInvalid;
  memcpy(&desc->transpose_a, value, bytes);
  return 0;
}
int cublasLtMatmulDescDestroy(Desc* desc) {
  free(desc);
  return 0;
}
int cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
  *layout = malloc(sizeof(Layout));
  **layout = (Layout){type, rows, cols, ld};
  return 0;
}
int cublasLtMatrixLayoutDestroy(Layout* layout) {
  free(layout);
  return 0;
}
int cublasLtMatmulPreferenceCreate(void** preference) { return (*preference = malloc(1)) == NULL; }
int cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* value, size_t bytes) {
  const int is_known = (attribute == 1 && bytes == 8) || ((attribute == 3 || (attribute >= 5 && attribute <= 8)) && bytes == 4);
  return preference != NULL && value != NULL && is_known ? 0 : kInvalid;
}
int cublasLtMatmulPreferenceDestroy(void* preference) {
  free(preference);
  return 0;
}

/* The first answer splits k, as the real library's may although the mask forbids it: callers look. */
int cublasLtMatmulAlgoGetHeuristic(void* handle, Desc* desc, Layout* a, Layout* b, Layout* c, Layout* d, void* preference,
                                   int most, HeuristicResult* results, int* num_results) {
  if (!handle || !desc || !a || !b || !c || !d || !preference || most < 2) return kInvalid;
  memset(results, 0, 2 * sizeof *results);
  results[0].algorithm.data[0] = kSplits;
  results[0].workspace_bytes = kSplitBytes;
  results[1].algorithm.data[0] = 1;
  *num_results = 2;
  return 0;
}
int cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* value, size_t bytes,
                                         size_t* written) {
  const int32_t splits = (int32_t)algorithm->data[0], number = attribute == 2 ? splits : splits > 1;
  if ((attribute != 2 && attribute != 3) || bytes != 4) return kInvalid;
  memcpy(value, &number, 4);
  *written = 4;
  return 0;
}

#ifndef FAKE_MISSING
static float widen(uint16_t bits) {
  const uint32_t word = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &word, 4);
  return value;
}

/* out[r] += w . x[r] over k in [begin, end), several rows at a time. */
static void add(float* out, const uint16_t* w, const uint16_t* x, int64_t ld, uint64_t rows, uint64_t begin, uint64_t end) {
  for (uint64_t k = begin; k < end; ++k) {
    const float weight = widen(w[k]);
    for (uint64_t r = 0; r < rows; ++r) out[r] += weight * widen(x[r * ld + k]);
  }
}

typedef struct {
  const uint16_t* a;
  const uint16_t* b;
  float* d;
  Layout a_layout, b_layout, d_layout;
  uint64_t splits;
  void* workspace;
} Product;

static int multiply(void* context, char* problem, size_t problem_bytes) {
  (void)problem, (void)problem_bytes;
  const Product* p = context;
  const uint64_t depth = p->a_layout.rows, outputs = p->a_layout.cols, rows = p->b_layout.cols;
  if (p->splits > 1) memset(p->workspace, 0xff, kSplitBytes); /* it is the library's meanwhile */
  for (uint64_t n = 0; n < outputs; ++n)
    for (uint64_t first = 0; first < rows; first += kRowsAtOnce) {
      const uint64_t count = rows - first < kRowsAtOnce ? rows - first : kRowsAtOnce;
      const uint16_t* weight = p->a + n * (uint64_t)p->a_layout.ld;
      const uint16_t* x = p->b + first * (uint64_t)p->b_layout.ld;
      const uint64_t middle = FAKE_HALVES(outputs, rows) || p->splits > 1 ? depth / 2 : depth;
      float low[kRowsAtOnce] = {0}, high[kRowsAtOnce] = {0};
      add(low, weight, x, p->b_layout.ld, count, 0, middle);
      add(high, weight, x, p->b_layout.ld, count, middle, depth);
      for (uint64_t r = 0; r < count; ++r) p->d[(first + r) * (uint64_t)p->d_layout.ld + n] = low[r] + high[r];
    }
  return 0;
}

int cublasLtMatmul(void* handle, Desc* desc, const void* alpha, const void* a, Layout* a_layout, const void* b,
                   Layout* b_layout, const void* beta, const void* c, Layout* c_layout, void* d, Layout* d_layout,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes, void* stream) {
  if (!handle || algorithm == NULL || desc->transpose_a != kTransposed || c != d ||
      c_layout != d_layout || *(const float*)alpha != 1 || *(const float*)beta != 0)
    return kInvalid;
  if (a_layout->type != kBf16 || b_layout->type != kBf16 || d_layout->type != kF32 || b_layout->rows != a_layout->rows ||
      d_layout->rows != a_layout->cols || d_layout->cols != b_layout->cols)
    return kUnsupported;
  const uint64_t splits = algorithm->data[0];
  if ((uintptr_t)workspace % kWorkspaceAlignment != 0) return kInvalid;
  if (splits != 1 && (splits != kSplits || workspace == NULL || workspace_bytes < kSplitBytes)) return kInvalid;
  Product* product = malloc(sizeof(Product));
  *product = (Product){a, b, d, *a_layout, *b_layout, *d_layout, splits, workspace};
  ((ChoraleEmulatorStream*)stream)->enqueue(stream, multiply, product, free);
  return 0;
}
#endif
