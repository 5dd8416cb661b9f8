#include "comm/base/fp_state.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace chorale {

void set_compute_thread_fp_state() {
#if defined(__x86_64__)
  constexpr unsigned kMaskAll = 0x1f80, kDenormalsAreZero = 0x0040,
                     kFlushToZero = 0x8000;  // Intel SDM volume 1, 10.2.3
  _mm_setcsr(kMaskAll | kDenormalsAreZero | kFlushToZero);
#endif
}

}  // namespace chorale
