// What the linear kernels share: rows of x staged through shared memory, the walk over a weight's leaves in turns of a
// pipeline, and the fold of leaf sums in the tree (N3).
#pragma once

#include <type_traits>

#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/kernels/cuda/linear_plan.h"

namespace chorale::worker::inline SIMT {

/// 16 bytes of shared memory, aligned, whatever their type: one load. (nvcc makes 16 loads of a memcpy.)
__device__ __forceinline__ Bytes16 load_shared_16(const void* p) {
#if defined(__CUDACC__)
  return *static_cast<const Bytes16*>(p);
#else
  emulator::check_aligned_16(p, "loads 16 bytes of shared memory that are not aligned to 16");
  Bytes16 value;
  std::memcpy(&value, p, sizeof(value));
  return value;
#endif
}
__device__ __forceinline__ Bytes16* at_16(void* base, int64_t index) { return static_cast<Bytes16*>(base) + index; }

/// A launch's parameters but for the weight, which is the kernel's own way to see it. T: element of x.
template <typename Params, typename T, typename Args>
Params linear_params(const Args& args) {
  Params p;
  p.x = rows_of<const T>(args.x);
  p.out = rows_of<float>(args.out);
  p.bias = args.bias;
  p.rows = args.x.rows;
  p.n = args.weight->n;
  p.plan = make_linear_plan(*args.weight, args.nodes);
  return p;
}

/// Where a lane of leaves stands: `group` padded k of one leaf are a turn.
template <int kGroup>
struct LeafCursor {
  int leaf;
  int k = 0;  // padded, from the leaf's start
  int lanes;

  __device__ LeafCursor(const LinearPlan& plan, int lane, int num_lanes) : leaf(lane), lanes(num_lanes) {
    skip_empty(plan);
  }
  __device__ bool is_valid(const LinearPlan& plan) const { return leaf < plan.num_leaves; }
  /// Padded k of this turn.
  __device__ int length(const LinearPlan& plan) const {
    const int left = leaf_length(plan) - k;
    return left < kGroup ? left : kGroup;
  }
  __device__ bool ends_leaf(const LinearPlan& plan) const { return k + kGroup >= leaf_length(plan); }
  __device__ void advance(const LinearPlan& plan) {
    k += kGroup;
    if (k < leaf_length(plan)) return;
    k = 0;
    leaf += lanes;
    skip_empty(plan);
  }

 private:
  __device__ int leaf_length(const LinearPlan& plan) const {
    return plan.padded_begin[leaf + 1] - plan.padded_begin[leaf];
  }
  __device__ void skip_empty(const LinearPlan& plan) {
    while (leaf < plan.num_leaves && leaf_length(plan) == 0) leaf += lanes;
  }
};

/// A stage of x: `kGroup` elements of each row in chunks of 16 bytes, which change places within a row so that the same
/// chunk of eight rows lies in different banks.
template <typename X, int kGroup>
struct RowStage {
  static constexpr int kChunk = 16 / static_cast<int>(sizeof(X));  // elements
  static constexpr int kChunks = kGroup / kChunk;                  // of a row
  static_assert(kChunks == 4 || kChunks % 8 == 0);
  static constexpr int kRowBytes = 16 * kChunks;

  __device__ static int slot(int row, int chunk) {
    return row * kChunks + (kChunks == 4 ? chunk ^ (row / 2 % 4) : chunk ^ (row % 8));
  }

  /// Starts to fill the rows with x(first_row + row, from + i), i < length; what lies outside of [begin, end) becomes
  /// zero. The calling threads are numbered 0..num_threads.
  __device__ static void fill(void* stage, const Rows<const X>& x, int64_t first_row, int num_rows, int from, int begin,
                              int end, int length, unsigned thread, unsigned num_threads) {
    for (unsigned piece = thread; piece < static_cast<unsigned>(num_rows * kChunks); piece += num_threads) {
      const int row = static_cast<int>(piece) / kChunks, chunk = static_cast<int>(piece) % kChunks;
      if (chunk * kChunk >= length) continue;
      const int first = from + chunk * kChunk;
      const X* source = x.row(first_row + row) + first;
      void* to = at_16(stage, slot(row, chunk));
      if (first >= begin && first + kChunk <= end && reinterpret_cast<uintptr_t>(source) % 16 == 0)
        copy_async_16(to, source);
      else
        copy_masked(static_cast<X*>(to), source, begin - first, end - first);
    }
  }

 private:
  __device__ static void copy_masked(X* to, const X* source, int begin, int end) {
#pragma unroll
    for (int i = 0; i < kChunk; ++i) to[i] = i >= begin && i < end ? source[i] : X{};
  }
};

/// Folds one element's leaf sums, `sums[leaf * stride]`, in the tree, and calls store(node, sum) for each node. The
/// slots of leaves that are done hold the sums that wait.
template <typename Store>
__device__ __forceinline__ void fold_leaves(const LinearPlan& plan, float* sums, int stride, const Store& store) {
  int pending = 0, node = 0;
  for (int leaf = 0; leaf < plan.num_leaves; ++leaf) {
    float sum = sums[leaf * stride];
    for (int i = 0; i < plan.merges[leaf]; ++i) sum = sums[--pending * stride] + sum;
    if (plan.ends_node[leaf] != 0)
      store(node++, sum);
    else
      sums[pending++ * stride] = sum;
  }
}

}  // namespace chorale::worker::inline SIMT
