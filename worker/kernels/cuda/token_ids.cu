// resolve_ids and keep_ids: an id a thread, 128 threads a block; reads 8 bytes, writes 4. No sums.
#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/token_ids.h"

namespace chorale::worker {
namespace {

constexpr unsigned kThreads = 128;

__global__ void __launch_bounds__(kThreads) resolve_ids_kernel(ResolveIdsArgs p) {
  const int64_t i = int64_t{block_index().x} * kThreads + thread_index().x;
  if (i >= p.count) return;
  const int32_t source = p.sources[i];
  p.ids[i] = source >= 0 ? source : p.table[-1 - source];
}

__global__ void __launch_bounds__(kThreads) keep_ids_kernel(KeepIdsArgs p) {
  const int64_t i = int64_t{block_index().x} * kThreads + thread_index().x;
  if (i < p.count && p.slots[i] >= 0) p.table[p.slots[i]] = p.ids[i];
}

void resolve_ids_launch(OpContext& ctx, const ResolveIdsArgs& args) {
  launch(ctx, resolve_ids_kernel, {.grid = {ceil_div(args.count, kThreads)}, .block = {kThreads}}, args);
}
void keep_ids_launch(OpContext& ctx, const KeepIdsArgs& args) {
  launch(ctx, keep_ids_kernel, {.grid = {ceil_div(args.count, kThreads)}, .block = {kThreads}}, args);
}

constexpr auto kIsa = parallel::Isa::kScalar;
const KernelTable<ResolveIdsArgs>::Add kAdd1({"resolve_ids", kKernelDevice, kIsa, 0, supports_all, resolve_ids_launch});
const KernelTable<KeepIdsArgs>::Add kAdd2({"keep_ids", kKernelDevice, kIsa, 0, supports_all, keep_ids_launch});

}  // namespace
}  // namespace chorale::worker
