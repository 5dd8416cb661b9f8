// embedding: gathers rows of a table in device memory, out[i] = or += table[ids[i]]. One quad of one output row a
// thread, 32 to 256 threads a block by the number of columns; reads each gathered row once, writes each output once. No
// sums but the one addition of kAdd. REQUIRES: ids inside the table; nothing checks them here.
#include "worker/kernels/cuda/quads.cuh"
#include "worker/ops/embedding.h"
#include "worker/ops/kernel.h"

namespace chorale::worker {
namespace {

template <typename T>
struct Params {
  const int32_t* ids;  // [rows]
  Rows<const T> table;
  Rows<float> out;
  QuadGrid grid;
  EmbeddingMode mode;
};

template <typename T>
__global__ void __launch_bounds__(kQuadThreads) embedding_kernel(Params<T> p) {
  const auto [row, col, count] = quad_place(p.grid);
  if (count <= 0) return;
  float v[4], before[4];
  load_quad(v, p.table.row(p.ids[row]) + col, count, p.grid.aligned);
  if (p.mode == EmbeddingMode::kAdd) {
    load_quad(before, p.out.row(row) + col, count, p.grid.aligned);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = before[i] + v[i];
  }
  store_quad(p.out.row(row) + col, v, count, p.grid.aligned);
}

template <typename T>
void launch_as(OpContext& ctx, const EmbeddingArgs& args) {
  const QuadGrid grid = quad_grid(args.out.cols, starts_quads(args.table) && starts_quads(args.out));
  launch(ctx, embedding_kernel<T>, quad_launch(grid, args.out.rows),
         Params<T>{args.ids, rows_of<const T>(args.table), rows_of<float>(args.out), grid, args.mode});
}

void embedding_launch(OpContext& ctx, const EmbeddingArgs& args) {
  if (args.out.cols == 0) return;
  as_type(args.table.dtype, [&](auto type) { launch_as<decltype(type)>(ctx, args); });
}

const KernelTable<EmbeddingArgs>::Add kAdd({"embedding_quads", kKernelDevice, parallel::Isa::kScalar, 0, supports_all,
                                            embedding_launch});

}  // namespace
}  // namespace chorale::worker
