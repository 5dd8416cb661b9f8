// The arithmetic of the emulated tensor core, vectorised over the eight columns where the CPU can.
#include "worker/kernels/cuda/matrix_instructions.cuh"

namespace chorale::worker::inline SIMT::mma_twin {
namespace {

__attribute__((always_inline)) inline void multiply_rows(float (&d)[16][8], const float (&a)[16][16],
                                                         const float (&b)[16][8]) {
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 8; ++n) d[m][n] = __builtin_fmaf(a[m][k], b[k][n], d[m][n]);
}
__attribute__((target("avx2,fma"))) void multiply_avx2(float (&d)[16][8], const float (&a)[16][16],
                                                       const float (&b)[16][8]) {
  multiply_rows(d, a, b);
}
void multiply_plain(float (&d)[16][8], const float (&a)[16][16], const float (&b)[16][8]) { multiply_rows(d, a, b); }

}  // namespace

void multiply(float (&d)[16][8], const float (&a)[16][16], const float (&b)[16][8]) {
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  (has_avx2 ? multiply_avx2 : multiply_plain)(d, a, b);
}

}  // namespace chorale::worker::inline SIMT::mma_twin
