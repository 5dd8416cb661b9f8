// rope: turns the pairs of q or k in place. One pair a thread, 128 threads a block, blocks along the pairs of a row and
// over rows; neighbouring threads take neighbouring pairs of one head, so both pairings read and write whole lines.
// Reads x, cos and sin once, writes x once. No sums; the operations of one pair are those of the scalar kernel.
#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/rope.h"

namespace chorale::worker {
namespace {

constexpr unsigned kThreads = 128;

struct Params {
  Rows<float> x;
  const int32_t* positions;  // [rows]
  const float* cos;          // [max_positions, half]
  const float* sin;
  int64_t head_dim;
  unsigned half, pairs;  // of a head, of a row
  unsigned blocks;       // of a row
  RopePairing pairing;
};

__global__ void __launch_bounds__(kThreads) rope_kernel(Params p) {
  const int64_t row = block_index().x / p.blocks;
  const unsigned pair = block_index().x % p.blocks * kThreads + thread_index().x;
  if (pair >= p.pairs) return;
  const unsigned i = pair % p.half;
  const bool interleaved = p.pairing == RopePairing::kInterleaved;
  float* head = p.x.row(row) + pair / p.half * p.head_dim;
  float& a = head[interleaved ? 2 * i : i];
  float& b = head[interleaved ? 2 * i + 1 : i + p.half];
  const int64_t angle = int64_t{p.positions[row]} * p.half + i;
  const float a0 = a, b0 = b, cosine = p.cos[angle], sine = p.sin[angle];
  a = fma(a0, cosine, -(b0 * sine));
  b = fma(b0, cosine, a0 * sine);
}

void rope_launch(OpContext& ctx, const RopeArgs& args) {
  const auto half = static_cast<unsigned>(args.cos.shape[1]);
  const auto pairs = static_cast<unsigned>(args.x.cols / args.head_dim) * half;
  if (pairs == 0) return;
  const unsigned blocks = ceil_div(pairs, kThreads);
  launch(ctx, rope_kernel, {.grid = {static_cast<unsigned>(args.x.rows) * blocks}, .block = {kThreads}},
         Params{rows_of<float>(args.x), args.positions, args.cos.as<float>(), args.sin.as<float>(), args.head_dim, half,
                pairs, blocks, args.pairing});
}

const KernelTable<RopeArgs>::Add kAdd({"rope_pairs", kKernelDevice, parallel::Isa::kScalar, 0, supports_all,
                                       rope_launch});

}  // namespace
}  // namespace chorale::worker
