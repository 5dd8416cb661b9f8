// linear_int8 for few rows: the scalar CPU kernel's bits (linear_few_rows.cuh). A lane is an output of 1, 4 or 8 rows;
// a turn is four groups of 32 inputs, whose dots are chains side by side, so that their latency hides behind each
// other; their scales follow in order. Bytes: 36 for 32 weights. A weight costs about three instructions (bytes to
// float32, then an fma a row), which is what limits it where n gives a multiprocessor only one or two warps.
#include "worker/kernels/cuda/linear_few_rows.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/linear_int8.h"

namespace chorale::worker {
namespace {

constexpr int kBlock = static_cast<int>(Int8Weight::kBlock), kLanesOfWarp = 32;
static_assert(Int8Weight::kTile == kLanesOfWarp);

struct Int8Tiles {
  const unsigned char* values;  // [tiles, groups, 2, 32, 16]
  const float* scales;          // [tiles, groups, 32]
  int64_t groups;
  int block_offset;
};

/// Byte `i` of the word, two's complement. 2^23 + u is a float32 whose last byte is u: no conversion is needed, which
/// takes four times as long.
__device__ __forceinline__ float byte_as_float(uint32_t word_plus_128, int i) {
  return float_of(0x4b000000u | (word_plus_128 >> (8 * i) & 0xffu)) - 8388736.0f;
}

template <int kNumRows>
struct Int8Tile {
  using X = float;
  using Weight = Int8Tiles;
  static constexpr int kRows = kNumRows, kOutputs = kLanesOfWarp, kGroups = 4, kGroup = kGroups * kBlock, kStages = 4;
  static constexpr int kValueBytes = kGroup * kOutputs, kWeightBytes = kValueBytes + kGroups * kOutputs * 4;
  static constexpr int kAtOnce = kNumRows < 8 ? 4 : 2;  // groups whose chains run side by side
  using XStage = RowStage<float, kGroup>;

  __device__ static int base(const LinearPlan& plan, const Int8Tiles& weight, int leaf) {
    return (weight.block_offset + plan.begin[leaf]) / kBlock * kBlock - weight.block_offset;
  }
  __device__ static void copy(const Int8Tiles& weight, int64_t tile, int padded_k, int length, void* stage) {
    const int64_t group = tile * weight.groups + padded_k / kBlock;
    const unsigned char* values = weight.values + (group * 2 * kLanesOfWarp + lane()) * 16;
#pragma unroll
    for (int half = 0; half < 2 * kGroups; ++half)
      if (half / 2 * kBlock < length)
        copy_async_16(at_16(stage, half * kLanesOfWarp + lane()), values + half * kLanesOfWarp * 16);
    if (static_cast<int>(lane()) / 8 * kBlock < length)  // eight lanes bring the 32 scales of a group
      copy_async_16(at_16(stage, kValueBytes / 16 + lane()), weight.scales + group * kOutputs + lane() * 4);
  }
  __device__ void clear() {
#pragma unroll
    for (float& s : sum) s = 0.0f;
  }
  __device__ void multiply(void* x_stage, void* stage, int length) {
    int group = 0;
    for (; (group + kAtOnce) * kBlock <= length; group += kAtOnce) multiply_groups<kAtOnce>(x_stage, stage, group);
    for (; group * kBlock < length; ++group) multiply_groups<1>(x_stage, stage, group);
  }
  __device__ void store(float* sums, int columns) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r * columns + static_cast<int>(lane())] = sum[r];
  }

  /// Groups [first, first + kCount) of the stage.
  template <int kCount>
  __device__ __forceinline__ void multiply_groups(void* x_stage, void* stage, int first) {
    float dot[kCount][kRows] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Bytes16 values[kCount];
#pragma unroll
      for (int g = 0; g < kCount; ++g)
        values[g] = load_shared_16(at_16(stage, ((first + g) * 2 + half) * kLanesOfWarp + lane()));
#pragma unroll
      for (int quad = 0; quad < 4; ++quad)
#pragma unroll
        for (int g = 0; g < kCount; ++g)
          multiply_quad(dot[g], values[g].word[quad] ^ 0x80808080u, x_stage, (first + g) * 8 + half * 4 + quad);
    }
    const float* scales = reinterpret_cast<const float*>(static_cast<unsigned char*>(stage) + kValueBytes) + lane();
#pragma unroll
    for (int g = 0; g < kCount; ++g)
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum[r] = fma(scales[(first + g) * kOutputs], dot[g][r], sum[r]);
  }
  /// Four inputs: chunk `chunk` of each row of x.
  __device__ __forceinline__ static void multiply_quad(float (&dot)[kRows], uint32_t word_plus_128, void* x_stage,
                                                       int chunk) {
    float w[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) w[i] = byte_as_float(word_plus_128, i);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const Bytes16 x = load_shared_16(at_16(x_stage, XStage::slot(r, chunk)));
#pragma unroll
      for (int i = 0; i < 4; ++i) dot[r] = fma(w[i], float_of(x.word[i]), dot[r]);
    }
  }

  float sum[kRows];
};

template <int kNumRows>
void launch_few(OpContext& ctx, const LinearInt8Args& args) {
  constexpr int kMostTiles = 2;
  const Int8Weight& w = *args.weight;
  auto p = linear_params<FewRowsParams<Int8Tile<kNumRows>>, float>(args);
  p.weight = {static_cast<const unsigned char*>(w.values.view().data), w.scales.as<float>(), w.values.shape()[1],
              static_cast<int>(w.block_offset)};
  launch_few_rows(ctx, p, kMostTiles);
}

void linear_int8_launch(OpContext& ctx, const LinearInt8Args& args) {
  if (args.x.rows == 1) return launch_few<1>(ctx, args);
  if (args.x.rows <= 4) return launch_few<4>(ctx, args);
  launch_few<8>(ctx, args);
}

bool supports(const OpContext&, const LinearInt8Args& args) {
  return args.weight->num_leaves() <= LinearPlan::kMaxLeaves;
}

const KernelTable<LinearInt8Args>::Add kAdd({"linear_int8_few_rows", kKernelDevice, parallel::Isa::kScalar, 0, supports,
                                             linear_int8_launch});

}  // namespace
}  // namespace chorale::worker
