// Norms, element-wise ops, rope and logits with AVX-512: the code of row_ops-inl.h over one 512-bit register.

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/top_k_rows.h"
#include "worker/ops/activation.h"
#include "worker/ops/add_residual.h"
#include "worker/ops/cast.h"
#include "worker/ops/embedding.h"
#include "worker/ops/kernel.h"
#include "worker/ops/layer_norm.h"
#include "worker/ops/logits.h"
#include "worker/ops/math_constants.h"
#include "worker/ops/rms_norm.h"
#include "worker/ops/rope.h"
#include "worker/ops/silu_mul.h"
#include "worker/thread_pool.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")

namespace chorale::worker {
namespace {

#include "worker/kernels/cpu/vec_avx512-inl.h"
// Vec above; then the functions over it.
#include "worker/kernels/cpu/math-inl.h"
// The ops themselves.
#include "worker/kernels/cpu/row_ops-inl.h"

}  // namespace
}  // namespace chorale::worker

#pragma GCC pop_options

namespace chorale::worker {
namespace {
constexpr auto kCpu = DeviceKind::kCpu;
constexpr auto kIsa = parallel::Isa::kAvx512;
constexpr int kPriority = 20;
const KernelTable<RmsNormArgs>::Add kAdd1({"rms_norm_avx512", kCpu, kIsa, kPriority, supports_all, rms_norm_launch});
const KernelTable<LayerNormArgs>::Add kAdd2({"layer_norm_avx512", kCpu, kIsa, kPriority, supports_all,
                                             layer_norm_launch});
const KernelTable<AddResidualArgs>::Add kAdd3({"add_residual_avx512", kCpu, kIsa, kPriority, supports_all,
                                               add_residual_launch});
const KernelTable<SiluMulArgs>::Add kAdd4({"silu_mul_avx512", kCpu, kIsa, kPriority, supports_all, silu_mul_launch});
const KernelTable<ActivationArgs>::Add kAdd5({"activation_avx512", kCpu, kIsa, kPriority, supports_all,
                                              activation_launch});
const KernelTable<CastArgs>::Add kAdd6({"cast_avx512", kCpu, kIsa, kPriority, cast_supports, cast_launch});
const KernelTable<EmbeddingArgs>::Add kAdd7({"embedding_avx512", kCpu, kIsa, kPriority, embedding_supports,
                                             embedding_launch});
const KernelTable<RopeArgs>::Add kAdd8({"rope_avx512", kCpu, kIsa, kPriority, supports_all, rope_launch});
const KernelTable<LogitStatsArgs>::Add kAdd9({"logit_stats_avx512", kCpu, kIsa, kPriority, supports_all,
                                              logit_stats_launch});
const KernelTable<TopKArgs>::Add kAdd10({"top_k_avx512", kCpu, kIsa, kPriority, supports_all, top_k_launch});
}  // namespace
}  // namespace chorale::worker
