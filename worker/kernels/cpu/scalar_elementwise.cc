// Element-wise ops, scalar reference: add_residual, silu_mul, activation, cast, rope, embedding, kv_write. No sums, so
// no order; the operations of one element are those written here, each rounded once.

#include <cmath>

#include "worker/kernels/cpu/scalar_support.h"
#include "worker/ops/activation.h"
#include "worker/ops/add_residual.h"
#include "worker/ops/cast.h"
#include "worker/ops/embedding.h"
#include "worker/ops/kernel.h"
#include "worker/ops/kv_write.h"
#include "worker/ops/math.h"
#include "worker/ops/rope.h"
#include "worker/ops/silu_mul.h"
#include "worker/thread_pool.h"

namespace chorale::worker {
namespace {

/// fn(row, col) for every element of [rows, cols], rows split over the threads.
template <typename Fn>
void for_each_element(OpContext& ctx, int64_t rows, int64_t cols, const Fn& fn) {
  ctx.pool.parallel_for(rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t col = 0; col < cols; ++col) fn(row, col);
  });
}

float silu(float x) { return x / (1.0f + exp_f32(-x)); }

float apply(parallel::Activation function, float x) {
  switch (function) {
    case parallel::Activation::kSilu: return silu(x);
    case parallel::Activation::kRelu: return x > 0.0f ? x : 0.0f;
    case parallel::Activation::kGelu: return (0.5f * x) * (1.0f + erf_f32(x * 0.70710678118654752f));
    case parallel::Activation::kGeluTanh: break;
  }
  const float u =
      x * std::fma(x * x, 0.035677408136300125f, 0.79788456080286536f);  // sqrt(2/pi) * 0.044715, sqrt(2/pi)
  return x / (1.0f + exp_f32(-2.0f * u));
}

void add_residual_launch(OpContext& ctx, const AddResidualArgs& args) {
  for_each_element(ctx, args.sum.rows, args.sum.cols, [&](int64_t r, int64_t c) {
    const float sum = args.sum.row<float>(r)[c];
    args.residual.row<float>(r)[c] += args.bias != nullptr ? sum + args.bias[c] : sum;
  });
}

void silu_mul_launch(OpContext& ctx, const SiluMulArgs& args) {
  for_each_element(ctx, args.out.rows, args.out.cols, [&](int64_t r, int64_t c) {
    store(args.out, r, c, silu(args.gate.row<float>(r)[c]) * args.up.row<float>(r)[c]);
  });
}

void activation_launch(OpContext& ctx, const ActivationArgs& args) {
  for_each_element(ctx, args.out.rows, args.out.cols,
                   [&](int64_t r, int64_t c) { store(args.out, r, c, apply(args.function, args.x.row<float>(r)[c])); });
}

void cast_launch(OpContext& ctx, const CastArgs& args) {
  for_each_element(ctx, args.out.rows, args.out.cols,
                   [&](int64_t r, int64_t c) { store(args.out, r, c, load(args.x, r, c)); });
}

void embedding_launch(OpContext& ctx, const EmbeddingArgs& args) {
  for_each_element(ctx, args.out.rows, args.out.cols, [&](int64_t r, int64_t c) {
    const float value = load(args.table, args.ids[r], c);
    float& out = args.out.row<float>(r)[c];
    out = args.mode == EmbeddingMode::kAdd ? out + value : value;
  });
}

void rope_launch(OpContext& ctx, const RopeArgs& args) {
  const int64_t half = args.cos.shape[1];
  const bool interleaved = args.pairing == RopePairing::kInterleaved;
  ctx.pool.parallel_for(args.x.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* cosine = args.cos.as<float>() + args.positions[row] * half;
      const float* sine = args.sin.as<float>() + args.positions[row] * half;
      for (int64_t head = 0; head < args.x.cols; head += args.head_dim)
        for (int64_t i = 0; i < half; ++i) {
          float& a = args.x.row<float>(row)[head + (interleaved ? 2 * i : i)];
          float& b = args.x.row<float>(row)[head + (interleaved ? 2 * i + 1 : i + half)];
          const float a0 = a, b0 = b;
          a = std::fma(a0, cosine[i], -(b0 * sine[i]));
          b = std::fma(b0, cosine[i], a0 * sine[i]);
        }
    }
  });
}

/// Element type of the cache: each K element goes to its key's lane, each V element to its row.
template <typename T, typename Round>
void write_rows(const KvWriteArgs& args, int64_t begin, int64_t end, const Round& round) {
  const KvLayer& cache = args.cache;
  const int64_t dim = cache.head_dim, padded = cache.padded_head_dim();
  for (int64_t row = begin; row < end; ++row) {
    const int64_t block = args.slots[row] / kBlockTokens, offset = args.slots[row] % kBlockTokens;
    for (int64_t head = 0; head < cache.num_kv_heads; ++head) {
      const int64_t place = block * cache.num_kv_heads + head;
      T* k = cache.k.as<T>() + place * dim * kBlockTokens + offset;
      T* v = cache.v.as<T>() + (place * kBlockTokens + offset) * padded;
      for (int64_t d = 0; d < dim; ++d) {
        k[d * kBlockTokens] = round(args.k.row<float>(row)[head * dim + d]);
        v[d] = round(args.v.row<float>(row)[head * dim + d]);
      }
    }
  }
}

void kv_write_launch(OpContext& ctx, const KvWriteArgs& args) {
  ctx.pool.parallel_for(args.k.rows, [&](int64_t begin, int64_t end, int) {
    if (args.cache.dtype() == DType::kBF16)
      write_rows<BFloat16>(args, begin, end, to_bf16);
    else
      write_rows<float>(args, begin, end, [](float x) { return x; });
  });
}

constexpr auto kCpu = DeviceKind::kCpu;
constexpr auto kIsa = parallel::Isa::kScalar;
const KernelTable<AddResidualArgs>::Add kAdd1({"add_residual_scalar", kCpu, kIsa, 0, supports_all,
                                               add_residual_launch});
const KernelTable<SiluMulArgs>::Add kAdd2({"silu_mul_scalar", kCpu, kIsa, 0, supports_all, silu_mul_launch});
const KernelTable<ActivationArgs>::Add kAdd3({"activation_scalar", kCpu, kIsa, 0, supports_all, activation_launch});
const KernelTable<CastArgs>::Add kAdd4({"cast_scalar", kCpu, kIsa, 0, supports_all, cast_launch});
const KernelTable<EmbeddingArgs>::Add kAdd5({"embedding_scalar", kCpu, kIsa, 0, supports_all, embedding_launch});
const KernelTable<RopeArgs>::Add kAdd6({"rope_scalar", kCpu, kIsa, 0, supports_all, rope_launch});
const KernelTable<KvWriteArgs>::Add kAdd7({"kv_write_scalar", kCpu, kIsa, 0, supports_all, kv_write_launch});

}  // namespace
}  // namespace chorale::worker
