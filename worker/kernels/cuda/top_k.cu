// top_k. k == 1: 256 threads take 4096 ids of a row and keep the best key, then one warp a row keeps the best of those;
// each logit is read once. Any other k: a block of 256 threads sorts 1024 ids and writes their best min(k, 1024) keys
// (8 bytes each) to scratch, then one block a row finds the k-th key by bisection, gathers what is before it and sorts
// that, in shared memory up to 4096 keys and in scratch above. Keys hold logit and id and are all different, so no
// order of comparisons changes the answer; there are no sums.
#include <bit>

#include "worker/kernels/cuda/quads.cuh"
#include "worker/kernels/cuda/sorted_chunks.cuh"
#include "worker/ops/kernel.h"

namespace chorale::worker {
namespace {

// ---- k == 1 ----
constexpr unsigned kQuadsPerThread = 4, kSpan = 4 * kSortThreads * kQuadsPerThread;  // ids a block reads

struct BestParams {
  Rows<const float> logits;
  uint64_t* best;  // [rows, spans]
  int64_t cols;
  unsigned spans;
  bool aligned;
};

__global__ void __launch_bounds__(kSortThreads) best_of_span_kernel(BestParams p) {
  const float* row = p.logits.row(block_index().x / p.spans);
  const int64_t first = int64_t{block_index().x % p.spans} * kSpan;
  uint64_t best = kNoKey;
#pragma unroll
  for (unsigned q = 0; q < kQuadsPerThread; ++q) {
    const int64_t id = first + int64_t{4} * (q * kSortThreads + thread_index().x);
    float v[4];
    load_quad(v, row + id, p.cols - id, p.aligned);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      best = larger_of(best, id + i < p.cols ? key_of(v[i], static_cast<uint32_t>(id + i)) : kNoKey);
  }
  best = largest_of_block(best, shared_memory<uint64_t>());
  if (thread_index().x == 0) p.best[block_index().x] = best;
}

struct FoldParams {
  Rows<const float> logits;
  const uint64_t* best;  // [rows, spans]
  unsigned spans;
  int32_t* ids;
  float* values;  // or null
};

__global__ void __launch_bounds__(32) best_of_row_kernel(FoldParams p) {
  const unsigned row = block_index().x;
  uint64_t best = kNoKey;
  for (unsigned i = lane(); i < p.spans; i += 32) best = larger_of(best, p.best[row * p.spans + i]);
  best = largest_of_warp(best);
  if (lane() != 0) return;
  p.ids[row] = id_of(best);
  if (p.values != nullptr) p.values[row] = p.logits.row(row)[id_of(best)];
}

void best_launch(OpContext& ctx, const TopKArgs& args) {
  const Workspace::Scope scope(ctx.scratch);
  const auto rows = static_cast<unsigned>(args.logits.rows), spans = ceil_div(args.logits.cols, kSpan);
  auto* best = ctx.scratch.take<uint64_t>(int64_t{rows} * spans);
  const auto logits = rows_of<const float>(args.logits);
  launch(ctx, best_of_span_kernel,
         {.grid = {rows * spans}, .block = {kSortThreads}, .shared_bytes = kSortThreads / 32 * sizeof(uint64_t)},
         BestParams{logits, best, args.logits.cols, spans, starts_quads(args.logits)});
  launch(ctx, best_of_row_kernel, {.grid = {rows}, .block = {32}},
         FoldParams{logits, best, spans, args.ids, args.values});
}

// ---- any k ----
struct SortParams {
  Rows<const float> logits;
  uint64_t* keys;  // [rows, chunks, kept]
  int64_t cols;
  unsigned chunks, kept;
};

__global__ void __launch_bounds__(kSortThreads) sort_chunk_kernel(SortParams p) {
  const float* row = p.logits.row(block_index().x / p.chunks);
  const unsigned first = block_index().x % p.chunks * kChunk;
  auto* keys = shared_memory<uint64_t>();
  for (unsigned i = thread_index().x; i < kChunk; i += kSortThreads)
    keys[i] = first + i < p.cols ? key_of(row[first + i], first + i) : kNoKey;
  sort_descending(keys, kChunk);
  uint64_t* to = p.keys + size_t{block_index().x} * p.kept;
  for (unsigned i = thread_index().x; i < p.kept; i += kSortThreads) to[i] = keys[i];
}

struct SelectParams {
  Rows<const float> logits;
  const uint64_t* keys;  // [rows, chunks, kept]
  uint64_t* room;        // [rows, sorted], or null: in shared memory
  int64_t cols;
  unsigned chunks, kept, k, sorted;  // sorted: k rounded up to a power of two
  int32_t* ids;                      // [rows, k]
  float* values;                     // [rows, k] or null
};

__global__ void __launch_bounds__(kSortThreads) select_kernel(SelectParams p) {
  const unsigned row = block_index().x;
  auto* next = shared_memory<uint32_t>();  // where the next chunk's keys go
  auto* after_next = shared_memory<uint64_t>() + 1;
  uint64_t* best = p.room != nullptr ? p.room + size_t{row} * p.sorted : after_next;
  void* search_room = p.room != nullptr ? after_next : after_next + p.sorted;
  const SortedChunks chunks{p.keys + size_t{row} * p.chunks * p.kept, nullptr, p.chunks, p.kept};
  if (thread_index().x == 0) *next = 0;
  for (unsigned i = thread_index().x; i < p.sorted; i += kSortThreads) best[i] = kNoKey;
  PrefixSearch search(chunks, search_room, [&](unsigned c) {
    const int64_t left = p.cols - int64_t{c} * kChunk;
    return static_cast<uint32_t>(left < p.kept ? left : p.kept);
  });
  search.first_where({Goal::Kind::kCount, p.k});
  for (unsigned c = thread_index().x; c < p.chunks; c += kSortThreads) {
    const uint32_t size = search.size(c), to = atomic_add(next, size);
    for (uint32_t i = 0; i < size; ++i) best[to + i] = chunks.keys[size_t{c} * p.kept + i];
  }
  sort_descending(best, p.sorted);
  for (unsigned i = thread_index().x; i < p.k; i += kSortThreads) {
    const int32_t id = id_of(best[i]);
    p.ids[size_t{row} * p.k + i] = id;
    if (p.values != nullptr) p.values[size_t{row} * p.k + i] = p.logits.row(row)[id];
  }
}

constexpr unsigned kSortedInShared = 4096;

void top_k_launch(OpContext& ctx, const TopKArgs& args) {
  if (args.k == 1) return best_launch(ctx, args);
  const Workspace::Scope scope(ctx.scratch);
  const auto rows = static_cast<unsigned>(args.logits.rows), chunks = ceil_div(args.logits.cols, kChunk);
  const auto k = static_cast<unsigned>(args.k), kept = std::min(k, kChunk), sorted = std::bit_ceil(k);
  auto* keys = ctx.scratch.take<uint64_t>(int64_t{rows} * chunks * kept);
  auto* room = sorted > kSortedInShared ? ctx.scratch.take<uint64_t>(int64_t{rows} * sorted) : nullptr;
  const auto logits = rows_of<const float>(args.logits);
  launch(ctx, sort_chunk_kernel,
         {.grid = {rows * chunks}, .block = {kSortThreads}, .shared_bytes = kChunk * sizeof(uint64_t)},
         SortParams{logits, keys, args.logits.cols, chunks, kept});
  const size_t shared = (1 + (room == nullptr ? sorted : 0)) * sizeof(uint64_t) + PrefixSearch::bytes(chunks);
  launch(ctx, select_kernel, {.grid = {rows}, .block = {kSortThreads}, .shared_bytes = shared},
         SelectParams{logits, keys, room, args.logits.cols, chunks, kept, k, sorted, args.ids, args.values});
}

bool top_k_supports(const OpContext&, const TopKArgs& args) { return args.logits.cols <= kMaxIds; }

const KernelTable<TopKArgs>::Add kAdd({"top_k_keys", kKernelDevice, parallel::Isa::kScalar, 0, top_k_supports,
                                       top_k_launch});

}  // namespace
}  // namespace chorale::worker
