// attention with AVX2 and FMA: up to 6 (query row, head) items at a time. One thread takes one tile of items, or one
// split of it where tiles are few. Order of additions: attention_tile-inl.h.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/attention_tiles.h"
#include "worker/ops/kernel.h"
#include "worker/ops/math_constants.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace chorale::worker {
namespace {

constexpr int kTileItems = 6;
constexpr int kRegisters = 6;  // Vec sums that stay in registers

#include "worker/kernels/cpu/vec_avx2-inl.h"
// Vec above; then the functions over it.
#include "worker/kernels/cpu/math-inl.h"
// The tiles themselves.
#include "worker/kernels/cpu/attention_tile-inl.h"

}  // namespace
}  // namespace chorale::worker

#pragma GCC pop_options

namespace chorale::worker {
namespace {
const KernelTable<AttentionArgs>::Add kAdd({"attention_avx2", DeviceKind::kCpu, parallel::Isa::kAvx2, 10, supports_all,
                                            attention_launch});
}  // namespace
}  // namespace chorale::worker
