// linear for 16-bit weights in fragments, on tensor cores: W is A (16 outputs), x is B (8 rows), float32 sums. Each
// leaf is a chain of m16n8k16 steps from zero, ascending in k, for 1 row and for 512 alike, so a row's bits do not
// depend on the others (N1): columns of B do not meet inside an instruction.
//
// Few rows (linear_few_rows.cuh): a warp has 16 outputs of 8 or 32 rows. A lane's weights are 16 bytes a step, which it
// copies to shared memory far ahead (a register load would hold too few on their way).
// Many rows (linear_many_rows.cuh): a warp has 64 outputs x 64 rows, 32 instructions a step for 8 loads of a lane, in
// blocks of 128 x 128; where sums must wait for their neighbours in the tree, or rows are too few for all
// multiprocessors, 32 x 32 in blocks of 128 x 64.
// x is staged in rows and read by ldmatrix, free of bank conflicts; weights are read in the order in which they lie.
#include "worker/kernels/cuda/linear_few_rows.cuh"
#include "worker/kernels/cuda/linear_many_rows.cuh"
#include "worker/kernels/cuda/matrix_instructions.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/linear.h"

namespace chorale::worker {
namespace {

constexpr int kTileOutputs = 16, kTileRows = 8, kStep = 16;  // of an instruction: outputs, rows, k
constexpr int kLanesOfWarp = 32;

template <typename T>
struct Fragments {
  const T* data;  // [tiles, steps, 32, 8]
  int64_t steps;  // padded k / 16
  int64_t num_tiles;

  __device__ const T* of_lane(int64_t tile, int64_t step) const {
    return data + ((tile * steps + step) * kLanesOfWarp + lane()) * 8;
  }
};

__device__ __forceinline__ FragmentA load_a(const void* stage, int index) {
  const Bytes16 bytes = load_shared_16(static_cast<const Bytes16*>(stage) + index * kLanesOfWarp + lane());
  return {{bytes.word[0], bytes.word[1], bytes.word[2], bytes.word[3]}};
}

template <typename T, int kRowTiles>
struct FewRowsTile {
  using X = T;
  using Weight = Fragments<T>;
  static constexpr int kRows = kTileRows * kRowTiles, kOutputs = kTileOutputs;
  static constexpr int kGroup = kRowTiles == 1 ? 128 : 64, kStages = kRowTiles == 1 ? 5 : 7;
  static constexpr int kSteps = kGroup / kStep, kWeightBytes = kSteps * kLanesOfWarp * 16;
  using XStage = RowStage<T, kGroup>;

  __device__ static int base(const LinearPlan& plan, const Weight&, int leaf) { return plan.begin[leaf]; }
  __device__ static void copy(const Weight& weight, int64_t tile, int padded_k, int length, void* stage) {
    const T* source = weight.of_lane(tile, padded_k / kStep);
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
      if (step * kStep < length)
        copy_async_16(at_16(stage, step * kLanesOfWarp + lane()), source + step * kLanesOfWarp * 8);
  }
  __device__ void clear() {
#pragma unroll
    for (FragmentC& c : sum) c = {};
  }
  __device__ void multiply(void* x_stage, void* stage, int length) {
    length == kGroup ? multiply_steps<true>(x_stage, stage, length) : multiply_steps<false>(x_stage, stage, length);
  }
  __device__ void store(float* sums, int columns) const {
    const int g = static_cast<int>(lane()) / 4, t = static_cast<int>(lane()) % 4;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[(kTileRows * r + 2 * t + i % 2) * columns + g + 8 * (i / 2)] = sum[r].value[i];
  }

  // Two steps at a time: one ldmatrix brings four chunks of 8 k of eight rows.
  template <bool kIsFull>
  __device__ __forceinline__ void multiply_steps(void* x_stage, void* stage, int length) {
    const int l = static_cast<int>(lane());
#pragma unroll
    for (int step = 0; step < kSteps; step += 2) {
      if (!kIsFull && step * kStep >= length) break;
      uint32_t b[kRowTiles][4];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
        load_matrices(b[r], at_16(x_stage, XStage::slot(kTileRows * r + l % 8, 2 * step + l / 8)));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (!kIsFull && (step + half) * kStep >= length) break;
        const FragmentA a = load_a(stage, step + half);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
          multiply_accumulate<T>(sum[r], a, FragmentB{{b[r][2 * half], b[r][2 * half + 1]}});
      }
    }
  }

  FragmentC sum[kRowTiles];
};

/// Warps lie kWarpsDown x kWarpsAcross over outputs and rows, each with kOutputTiles x kRowTiles instructions a step.
template <typename T, int kOutputTiles, int kRowTiles, int kWarpsDown, int kWarpsAcross, int kPendingSets, int kPerSm>
struct ManyRowsTile {
  using X = T;
  using Weight = Fragments<T>;
  static constexpr int kThreads = kLanesOfWarp * kWarpsDown * kWarpsAcross, kBlocks = kPerSm;
  static constexpr int kTilesDown = kOutputTiles * kWarpsDown, kOutputs = kTileOutputs * kTilesDown;
  static constexpr int kRows = kTileRows * kRowTiles * kWarpsAcross;
  static constexpr int kSteps = 2, kGroup = kSteps * kStep, kStages = 4;
  static constexpr int kWeightBytes = kTilesDown * kSteps * kLanesOfWarp * 16;
  static constexpr int kValues = 4 * kOutputTiles * kRowTiles, kPending = kPendingSets;
  using XStage = RowStage<T, kGroup>;
  static_assert(kRowTiles % 2 == 0);

  __device__ static int first_tile() { return static_cast<int>(warp()) / kWarpsAcross * kOutputTiles; }
  __device__ static int first_row_tile() { return static_cast<int>(warp()) % kWarpsAcross * kRowTiles; }
  __device__ static int output(int i) {
    return kTileOutputs * (first_tile() + i / (4 * kRowTiles)) + static_cast<int>(lane()) / 4 + 8 * (i % 4 / 2);
  }
  __device__ static int row(int i) {
    return kTileRows * (first_row_tile() + i / 4 % kRowTiles) + 2 * (static_cast<int>(lane()) % 4) + i % 2;
  }
  __device__ float& value(int i) { return sum[i / (4 * kRowTiles)][i / 4 % kRowTiles].value[i % 4]; }

  __device__ static void copy(const Weight& weight, int64_t, int64_t first_output, int padded_k, int length,
                              void* stage) {
    const int64_t tile = first_output / kTileOutputs, step = padded_k / kStep;
    constexpr int kWarps = kThreads / kLanesOfWarp;
#pragma unroll
    for (int i = 0; i < kTilesDown * kSteps / kWarps; ++i) {
      const int index = i * kWarps + static_cast<int>(warp()), in_tile = index % kSteps;
      if (tile + index / kSteps < weight.num_tiles && in_tile * kStep < length)
        copy_async_16(at_16(stage, index * kLanesOfWarp + lane()),
                      weight.of_lane(tile + index / kSteps, step + in_tile));
    }
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kValues; ++i) value(i) = 0.0f;
  }
  __device__ void multiply(void* x_stage, void* stage, int length) {
    const int l = static_cast<int>(lane());
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step * kStep >= length) break;
      uint32_t b[kRowTiles / 2][4];  // of two row tiles
#pragma unroll
      for (int j = 0; j < kRowTiles / 2; ++j) {
        const int row = kTileRows * (first_row_tile() + 2 * j + l / 16) + l % 8;
        load_matrices(b[j], at_16(x_stage, XStage::slot(row, 2 * step + l / 8 % 2)));
      }
#pragma unroll
      for (int i = 0; i < kOutputTiles; ++i) {
        const FragmentA a = load_a(stage, (first_tile() + i) * kSteps + step);
#pragma unroll
        for (int j = 0; j < kRowTiles; ++j)
          multiply_accumulate<T>(sum[i][j], a, FragmentB{{b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]}});
      }
    }
  }

  FragmentC sum[kOutputTiles][kRowTiles];
};

template <typename T>
using WideTile = ManyRowsTile<T, 4, 8, 2, 2, 0, 2>;
template <typename T>
using TreeTile = ManyRowsTile<T, 2, 4, 4, 2, LinearPlan::kMaxPending, 1>;

template <typename Params, typename T>
Params params_of(const LinearArgs& args) {
  const PackedWeight& w = *args.weight;
  auto p = linear_params<Params, T>(args);
  p.weight = {static_cast<const T*>(w.data.view().data), w.padded_k() / kStep, w.padded_n() / kTileOutputs};
  return p;
}

template <typename T>
void launch_few(OpContext& ctx, const LinearArgs& args) {
  constexpr int kMostTiles = 4;
  if (args.x.rows <= kTileRows)
    launch_few_rows(ctx, params_of<FewRowsParams<FewRowsTile<T, 1>>, T>(args), kMostTiles);
  else
    launch_few_rows(ctx, params_of<FewRowsParams<FewRowsTile<T, 4>>, T>(args), kMostTiles);
}

template <typename T>
void launch_many(OpContext& ctx, const LinearArgs& args) {
  constexpr unsigned kEnoughBlocks = 128;  // about one a multiprocessor
  const auto p = params_of<ManyRowsParams<TreeTile<T>>, T>(args);
  const unsigned wide_blocks = ceil_div(p.rows, WideTile<T>::kRows) * ceil_div(p.n, WideTile<T>::kOutputs);
  if (p.plan.num_leaves == 1 && wide_blocks >= kEnoughBlocks)
    launch_many_rows(ctx, params_of<ManyRowsParams<WideTile<T>>, T>(args));
  else
    launch_many_rows(ctx, p);
}

bool supports(const OpContext&, const LinearArgs& args) {
  return args.weight->order == WeightOrder::kFragments && args.weight->num_leaves() <= LinearPlan::kMaxLeaves;
}
bool supports_few(const OpContext& ctx, const LinearArgs& args) {
  constexpr int64_t kFewRows = 64;  // beyond, reading the weights again for each 32 rows costs more than small tiles
  return supports(ctx, args) && args.x.rows <= kFewRows;
}

void launch_few_of_any(OpContext& ctx, const LinearArgs& args) {
  args.weight->dtype == DType::kBF16 ? launch_few<BFloat16>(ctx, args) : launch_few<Float16>(ctx, args);
}
void launch_many_of_any(OpContext& ctx, const LinearArgs& args) {
  args.weight->dtype == DType::kBF16 ? launch_many<BFloat16>(ctx, args) : launch_many<Float16>(ctx, args);
}

const KernelTable<LinearArgs>::Add kAddFew({"linear_mma_few_rows", kKernelDevice, parallel::Isa::kScalar, 1,
                                            supports_few, launch_few_of_any});
const KernelTable<LinearArgs>::Add kAddMany({"linear_mma_many_rows", kKernelDevice, parallel::Isa::kScalar, 0, supports,
                                             launch_many_of_any});

}  // namespace
}  // namespace chorale::worker
