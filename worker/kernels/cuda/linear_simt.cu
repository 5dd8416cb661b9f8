// linear for float32 weights in panels: the scalar CPU kernel's bits. A lane is an output, a chain is `fma(w, x, sum)`
// from zero, ascending in k, one a leaf; no leaf is split.
//
// Few rows (linear_few_rows.cuh): a warp has 32 outputs of 1, 4 or 8 rows, whose sums stay in registers; 32 k a turn.
// Its instructions for k (a load of w, a quarter of a load of x a row, an fma a row) hide behind the 128 bytes that
// memory brings for it.
// Many rows (linear_many_rows.cuh): 64 outputs x 64 rows a block of 256 threads, each 4 x 4 sums.
#include "worker/kernels/cuda/linear_few_rows.cuh"
#include "worker/kernels/cuda/linear_many_rows.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/linear.h"

namespace chorale::worker {
namespace {

constexpr int kLanesOfWarp = 32;

struct Panels {
  const float* data;  // panel after panel [k][width]
  int64_t k;
  int64_t padded_n;

  /// Starts to copy outputs [first, first + kWidth) of `length` k from `from`, as far as they exist, to
  /// stage [length][kWidth]. All `kThreads` threads call, numbered.
  template <int kWidth, int kLength, int kThreads>
  __device__ void copy(int64_t first, int64_t from, int length, void* stage, int thread) const {
    constexpr int kChunks = kWidth / 4, kPieces = kLength * kChunks / kThreads;
    const int64_t panel = first / kPanelWidth * kPanelWidth, column = first - panel;
    const int64_t width = padded_n - panel < kPanelWidth ? padded_n - panel : kPanelWidth;
    const float* source = data + panel * k + from * width + column;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int piece = i * kThreads + thread, row = piece / kChunks, chunk = piece % kChunks;
      if (row < length && column + chunk * 4 < width)
        copy_async_16(at_16(stage, piece), source + row * width + chunk * 4);
    }
  }
};

/// sum[r][i] += x[r] w[i] over 4 k, each element its own chain. x: 4 k of a row; w: the 4 k of an output.
template <int kNumRows, int kNumOutputs>
__device__ __forceinline__ void multiply_4(float (&sum)[kNumRows][kNumOutputs], const Bytes16 (&x)[kNumRows],
                                           const float (&w)[4][kNumOutputs]) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int r = 0; r < kNumRows; ++r)
#pragma unroll
      for (int i = 0; i < kNumOutputs; ++i) sum[r][i] = fma(w[k][i], float_of(x[r].word[k]), sum[r][i]);
}

template <int kNumRows>
struct FewRowsTile {
  using X = float;
  using Weight = Panels;
  static constexpr int kRows = kNumRows, kOutputs = kLanesOfWarp, kGroup = 32, kStages = 6;
  static constexpr int kWeightBytes = kGroup * kOutputs * 4;
  using XStage = RowStage<float, kGroup>;

  __device__ static int base(const LinearPlan& plan, const Panels&, int leaf) { return plan.begin[leaf]; }
  __device__ static void copy(const Panels& weight, int64_t tile, int padded_k, int length, void* stage) {
    weight.copy<kOutputs, kGroup, kLanesOfWarp>(tile * kOutputs, padded_k, length, stage, static_cast<int>(lane()));
  }
  __device__ void clear() {
#pragma unroll
    for (auto& row : sum) row[0] = 0.0f;
  }
  __device__ void multiply(void* x_stage, void* stage, int length) {
    const float* w = static_cast<const float*>(stage) + lane();
#pragma unroll
    for (int k = 0; k < kGroup; k += 4) {
      if (k + 4 > length) break;
      Bytes16 x[kRows];
      float w4[4][1];
#pragma unroll
      for (int r = 0; r < kRows; ++r) x[r] = load_shared_16(at_16(x_stage, XStage::slot(r, k / 4)));
#pragma unroll
      for (int i = 0; i < 4; ++i) w4[i][0] = w[(k + i) * kOutputs];
      multiply_4(sum, x, w4);
    }
    for (int k = length / 4 * 4; k < length; ++k)
#pragma unroll
      for (int r = 0; r < kRows; ++r)
        sum[r][0] =
            fma(w[k * kOutputs], static_cast<const float*>(x_stage)[XStage::slot(r, k / 4) * 4 + k % 4], sum[r][0]);
  }
  __device__ void store(float* sums, int columns) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r * columns + static_cast<int>(lane())] = sum[r][0];
  }

  float sum[kRows][1];
};

struct ManyRowsTile {
  using X = float;
  using Weight = Panels;
  static constexpr int kThreads = 256, kBlocks = 1, kRows = 64, kOutputs = 64, kGroup = 32, kStages = 3;
  static constexpr int kWeightBytes = kGroup * kOutputs * 4, kSide = 4, kValues = kSide * kSide;
  static constexpr int kPending = LinearPlan::kMaxPending;
  static constexpr int kThreadsAcross = kOutputs / kSide;
  using XStage = RowStage<float, kGroup>;

  __device__ static int first_output() { return static_cast<int>(thread_index().x) % kThreadsAcross * kSide; }
  __device__ static int first_row() { return static_cast<int>(thread_index().x) / kThreadsAcross * kSide; }
  __device__ static int output(int i) { return first_output() + i % kSide; }
  __device__ static int row(int i) { return first_row() + i / kSide; }
  __device__ float& value(int i) { return sum[i / kSide][i % kSide]; }

  __device__ static void copy(const Panels& weight, int64_t n, int64_t first_output, int padded_k, int length,
                              void* stage) {
    weight.copy<kOutputs, kGroup, kThreads>(first_output, padded_k, length, stage, static_cast<int>(thread_index().x));
  }
  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < kValues; ++i) value(i) = 0.0f;
  }
  __device__ void multiply(void* x_stage, void* stage, int length) {
    for (int k = 0; k + 4 <= length; k += 4) {
      Bytes16 x[kSide];
      float w[4][kSide];
#pragma unroll
      for (int r = 0; r < kSide; ++r) x[r] = load_shared_16(at_16(x_stage, XStage::slot(first_row() + r, k / 4)));
#pragma unroll
      for (int i = 0; i < 4; ++i) load_weights(w[i], stage, k + i);
      multiply_4(sum, x, w);
    }
    for (int k = length / 4 * 4; k < length; ++k) {
      float w[kSide];
      load_weights(w, stage, k);
#pragma unroll
      for (int r = 0; r < kSide; ++r) {
        const float x = static_cast<const float*>(x_stage)[XStage::slot(first_row() + r, k / 4) * 4 + k % 4];
#pragma unroll
        for (int i = 0; i < kSide; ++i) sum[r][i] = fma(w[i], x, sum[r][i]);
      }
    }
  }
  __device__ __forceinline__ static void load_weights(float (&w)[kSide], void* stage, int k) {
    const Bytes16 bytes = load_shared_16(static_cast<const float*>(stage) + k * kOutputs + first_output());
#pragma unroll
    for (int i = 0; i < kSide; ++i) w[i] = float_of(bytes.word[i]);
  }

  float sum[kSide][kSide];
};

template <typename Params>
Params params_of(const LinearArgs& args) {
  const PackedWeight& w = *args.weight;
  auto p = linear_params<Params, float>(args);
  p.weight = {w.data.as<float>(), w.k, w.padded_n()};
  return p;
}

template <int kNumRows>
void launch_few(OpContext& ctx, const LinearArgs& args) {
  constexpr int kMostTiles = 2;
  launch_few_rows(ctx, params_of<FewRowsParams<FewRowsTile<kNumRows>>>(args), kMostTiles);
}
void launch_few_of_any(OpContext& ctx, const LinearArgs& args) {
  if (args.x.rows == 1) return launch_few<1>(ctx, args);
  if (args.x.rows <= 4) return launch_few<4>(ctx, args);
  launch_few<8>(ctx, args);
}
void launch_many(OpContext& ctx, const LinearArgs& args) {
  launch_many_rows(ctx, params_of<ManyRowsParams<ManyRowsTile>>(args));
}

bool supports(const OpContext&, const LinearArgs& args) {
  return args.weight->dtype == DType::kF32 && args.weight->num_leaves() <= LinearPlan::kMaxLeaves;
}
bool supports_few(const OpContext& ctx, const LinearArgs& args) {
  constexpr int64_t kFewRows = 16;  // two passes over the weights; beyond, tiles of 64 rows read them once
  return supports(ctx, args) && args.x.rows <= kFewRows;
}

const KernelTable<LinearArgs>::Add kAddFew({"linear_simt_few_rows", kKernelDevice, parallel::Isa::kScalar, 1,
                                            supports_few, launch_few_of_any});
const KernelTable<LinearArgs>::Add kAddMany({"linear_simt_many_rows", kKernelDevice, parallel::Isa::kScalar, 0,
                                             supports, launch_many});

}  // namespace
}  // namespace chorale::worker
