// tree_fold: the partial sums of all ranks, gathered as rows, meet in the reduction tree (N3). One quad of elements a
// thread, 256 threads a block; reads every node once, writes the root once.
// Order: nodes lie left to right, so the tree is a program for a stack: push a node, then add the two topmost entries
// as often as subtrees end there. Those are the schedule's additions on the same operands. The stack stands in
// registers: pushing and adding move all of its entries.
#include <vector>

#include "worker/kernels/cuda/quads.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/tree_fold.h"

namespace chorale::worker {
namespace {

constexpr size_t kMaxNodes = 32, kMaxDepth = 6;  // leaves are at most 16 (N2)

/// The program as bits, lowest first: for each node as many ones as additions follow its push, then a zero.
struct Program {
  uint64_t bits = 0;
  unsigned num_nodes = 0;
};

/// CHECKs that the schedule's additions are those of a binary tree over its nodes.
Program program_of(const comm::TreeSchedule& schedule) {
  const size_t num_nodes = schedule.nodes.size();
  std::vector<size_t> end(num_nodes), additions(num_nodes);  // end: of the sum that begins with node k
  for (size_t k = 0; k < num_nodes; ++k) end[k] = k + 1;
  for (const auto& [left, right] : schedule.additions) {
    const auto l = static_cast<size_t>(left), r = static_cast<size_t>(right);
    CHECK_EQ(end[l], r);
    end[l] = end[r];
    ++additions[end[r] - 1];
  }
  CHECK_EQ(end[0], num_nodes);
  Program program{.num_nodes = static_cast<unsigned>(num_nodes)};
  size_t depth = 0, bit = 0;
  for (size_t k = 0; k < num_nodes; ++k) {
    CHECK_LE(++depth, kMaxDepth);
    depth -= additions[k];
    for (size_t a = 0; a < additions[k]; ++a) program.bits |= uint64_t{1} << bit++;
    ++bit;
  }
  return program;
}

struct Params {
  const float* nodes;  // [num_nodes, count]
  float* out;          // [count]
  int64_t count;
  Program program;
  bool aligned;
};

__global__ void __launch_bounds__(kQuadThreads) tree_fold_kernel(Params p) {
  const int64_t first = int64_t{4} * (int64_t{block_index().x} * kQuadThreads + thread_index().x);
  const int64_t left = p.count - first;
  if (left <= 0) return;
  Quad<float> top{}, s1{}, s2{}, s3{}, s4{}, s5{};
  const float* node = p.nodes + first;
  uint64_t program = p.program.bits;
#pragma unroll 1
  for (unsigned k = 0; k < p.program.num_nodes; ++k, node += p.count) {
    s5 = s4, s4 = s3, s3 = s2, s2 = s1, s1 = top;
    load_quad(top.at, node, left, p.aligned);
#pragma unroll 1
    for (; (program & 1) != 0; program >>= 1) {
#pragma unroll
      for (int i = 0; i < 4; ++i) top.at[i] = s1.at[i] + top.at[i];
      s1 = s2, s2 = s3, s3 = s4, s4 = s5;
    }
    program >>= 1;
  }
  store_quad(p.out + first, top.at, left, p.aligned);
}

void tree_fold_launch(OpContext& ctx, const TreeFoldArgs& args) {
  const Program program = program_of(*args.schedule);
  const bool aligned = starts_quads(args.nodes) && starts_quads(args.out) && args.count % 4 == 0;
  launch(ctx, tree_fold_kernel, {.grid = {ceil_div(args.count, int64_t{4} * kQuadThreads)}, .block = {kQuadThreads}},
         Params{args.nodes, args.out, args.count, program, aligned});
}

bool tree_fold_supports(const OpContext&, const TreeFoldArgs& args) { return args.schedule->nodes.size() <= kMaxNodes; }

const KernelTable<TreeFoldArgs>::Add kAdd({"tree_fold_quads", kKernelDevice, parallel::Isa::kScalar, 0,
                                           tree_fold_supports, tree_fold_launch});

}  // namespace
}  // namespace chorale::worker
