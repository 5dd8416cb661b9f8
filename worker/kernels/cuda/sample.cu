// sample and count_tokens (worker/ops/sample.h states the rules and the order of additions). Four launches besides
// those of logit_stats and top_k, all rows together:
//   adjust   a block of 256 threads takes 1024 ids of a row, applies bias, bans, penalties and temperature in shared
//            memory, and writes the best key
//   sort     of rows that draw: the same chunk again, adjusted anew; drops what has no weight, sorts the keys, adds up
//            weights left to right; writes 16 bytes an id. Rows in slabs, so that scratch stays below kSlabBytes
//   draw     a block of 128 threads a row: the best key of all chunks, or three searches (top-k, top-p, the draw)
//   logprob  a warp a row: log-sum-exp of the raw logits, chunks left to right, and the differences to it
// Each logit is read four times, twice from L2 at most sizes; greedy rows leave out sort and the searches.
#include <algorithm>

#include "worker/kernels/cuda/math.cuh"
#include "worker/kernels/cuda/sorted_chunks.cuh"
#include "worker/ops/kernel.h"
#include "worker/ops/sample.h"

namespace chorale::worker {
namespace {

constexpr unsigned kDrawThreads = 128;
constexpr unsigned kSegment = 32, kSegments = kChunk / kSegment;  // of cumulative weights
constexpr int64_t kSlabBytes = int64_t{64} << 20;

struct ChunkParams {
  Rows<const float> logits;
  int64_t cols;
  unsigned chunks;
  const SampleRow* rows;
  const int32_t* bias_ids;
  const float* bias_values;
  const int32_t* banned_ids;
  const TokenCount* counts;  // [num_slots, cols]
  uint64_t* best;            // [rows, chunks]
  // Of a slab, only for the sort:
  uint64_t* keys;      // [rows, chunks, 1024]
  double* cumulative;  // [rows, chunks, 1024]
  uint32_t* sizes;     // [rows, chunks]
};

// ---- adjust ----
__device__ __forceinline__ float without_nan(float x) { return x != x ? -infinity() : x; }

__device__ __forceinline__ float penalized(float logit, TokenCount seen, const SampleRow& row) {
  if (seen == 0) return logit;
  const TokenCount count = seen / 2;
  logit = logit > 0.0f ? logit / row.repetition_penalty : logit * row.repetition_penalty;
  logit = logit - row.frequency_penalty * static_cast<float>(count);
  return count > 0 ? logit - row.presence_penalty : logit;
}

/// chunk[i] = the logit of id first + i after everything that comes before the choice; -inf past the vocabulary.
__device__ __forceinline__ void adjust_chunk(const ChunkParams& p, unsigned row_index, unsigned first, float* chunk) {
  const SampleRow& row = p.rows[row_index];
  const float* logits = p.logits.row(row_index);
  for (unsigned i = thread_index().x; i < kChunk; i += kSortThreads)
    chunk[i] = first + i < p.cols ? without_nan(logits[first + i]) : -infinity();
  sync_block();
  const auto is_here = [&](int32_t id) {
    return id >= 0 && id < p.cols && static_cast<unsigned>(id) / kChunk == first / kChunk;
  };
  for (int32_t i = static_cast<int32_t>(thread_index().x); i < row.num_biases; i += kSortThreads) {
    const int32_t id = p.bias_ids[row.first_bias + i];
    if (is_here(id)) chunk[id - first] = chunk[id - first] + p.bias_values[row.first_bias + i];
  }
  sync_block();
  for (int32_t i = static_cast<int32_t>(thread_index().x); i < row.num_banned; i += kSortThreads) {
    const int32_t id = p.banned_ids[row.first_banned + i];
    if (is_here(id)) chunk[id - first] = -infinity();
  }
  sync_block();
  const TokenCount* counts = row.count_slot < 0 ? nullptr : p.counts + row.count_slot * p.cols + first;
  for (unsigned i = thread_index().x; i < kChunk && first + i < p.cols; i += kSortThreads) {
    float logit = chunk[i];
    if (counts != nullptr) logit = penalized(logit, counts[i], row);
    logit = without_nan(logit);
    chunk[i] = row.temperature > 0.0f ? logit / row.temperature : logit;
  }
}

__global__ void __launch_bounds__(kSortThreads) adjust_kernel(ChunkParams p) {
  const unsigned row = block_index().x / p.chunks, first = block_index().x % p.chunks * kChunk;
  auto* room = shared_memory<uint64_t>();
  auto* chunk = reinterpret_cast<float*>(room + kSortThreads / 32);
  adjust_chunk(p, row, first, chunk);
  uint64_t best = kNoKey;
  for (unsigned i = thread_index().x; i < kChunk && first + i < p.cols; i += kSortThreads)
    best = larger_of(best, key_of(chunk[i], first + i));
  best = largest_of_block(best, room);
  if (thread_index().x == 0) p.best[block_index().x] = best;
}

/// The best key of a row, for every thread. `room`: a key a warp.
__device__ __forceinline__ uint64_t best_of_row(const uint64_t* best, unsigned chunks, uint64_t* room) {
  uint64_t key = kNoKey;
  for (unsigned c = thread_index().x; c < chunks; c += block_dims().x) key = larger_of(key, best[c]);
  key = largest_of_block(key, room);
  if (thread_index().x == 0) room[0] = key;
  sync_block();
  key = room[0];
  sync_block();
  return key;
}

// ---- sort ----
__device__ __forceinline__ float weight_of(float logit, float max) { return logit == max ? 1.0f : exp_of(logit - max); }

/// cumulative[i] = weight of the first i + 1 keys, by the first warp. `room` [kChunk + kSegments]: a lane's segment and
/// a gap, so that lanes use different banks.
__device__ __forceinline__ void add_up_weights(const uint64_t* keys, float max, double* room, double* cumulative) {
  const auto place = [](unsigned i) { return i + i / kSegment; };
  for (unsigned i = thread_index().x; i < kChunk; i += kSortThreads)
    room[place(i)] = keys[i] == kNoKey ? 0.0 : static_cast<double>(weight_of(logit_of(keys[i]), max));
  sync_block();
  if (warp() == 0) {
    static_assert(kSegments == 32);
    double* segment = room + place(lane() * kSegment);
    for (unsigned i = 1; i < kSegment; ++i) segment[i] = segment[i - 1] + segment[i];
    const double total = segment[kSegment - 1];
    double before = 0.0;
    for (unsigned s = 0; s + 1 < kSegments; ++s) {
      const double added = before + shuffle(total, s);
      if (s < lane()) before = added;
    }
    for (unsigned i = 0; i < kSegment; ++i) segment[i] = before + segment[i];
  }
  sync_block();
  for (unsigned i = thread_index().x; i < kChunk; i += kSortThreads) cumulative[i] = room[place(i)];
}

struct SortRoom {
  uint64_t keys[kChunk];
  double weights[kChunk + kSegments];
  float chunk[kChunk];
  uint32_t size;
};

__global__ void __launch_bounds__(kSortThreads, 6) sort_kernel(ChunkParams p) {
  const unsigned row = block_index().x / p.chunks, first = block_index().x % p.chunks * kChunk;
  const float min_p = p.rows[row].min_p;
  if (p.rows[row].temperature == 0.0f) return;
  auto& room = *shared_memory<SortRoom>();
  if (thread_index().x == 0) room.size = 0;
  const float max = logit_of(best_of_row(p.best + size_t{row} * p.chunks, p.chunks, room.keys));
  adjust_chunk(p, row, first, room.chunk);
  uint32_t size = 0;
  for (unsigned i = thread_index().x; i < kChunk; i += kSortThreads) {
    const float weight = first + i < p.cols && max != -infinity() ? weight_of(room.chunk[i], max) : 0.0f;
    const bool is_candidate = !(weight == 0.0f || weight < min_p);
    room.keys[i] = is_candidate ? key_of(room.chunk[i], first + i) : kNoKey;
    size += is_candidate ? 1 : 0;
  }
  atomic_add(&room.size, size);
  sort_descending(room.keys, kChunk);
  const size_t to = size_t{block_index().x} * kChunk;
  add_up_weights(room.keys, max, room.weights, p.cumulative + to);
  for (unsigned i = thread_index().x; i < kChunk; i += kSortThreads) p.keys[to + i] = room.keys[i];
  if (thread_index().x == 0) p.sizes[block_index().x] = room.size;
}

// ---- draw ----
struct DrawParams {
  const SampleRow* rows;
  const uint64_t* best;      // [rows, chunks]
  const uint64_t* keys;      // [rows, chunks, 1024]; this and the next two are not read for greedy rows
  const double* cumulative;  // [rows, chunks, 1024]
  const uint32_t* sizes;     // [rows, chunks]
  unsigned chunks;
  int32_t* chosen;  // [rows]
};

__global__ void __launch_bounds__(kDrawThreads) draw_kernel(DrawParams p) {
  const unsigned row = block_index().x;
  const size_t first = size_t{row} * p.chunks;
  auto* room = shared_memory<uint64_t>();
  const SampleRow& params = p.rows[row];
  uint64_t key = best_of_row(p.best + first, p.chunks, room);
  if (params.temperature > 0.0f && logit_of(key) != -infinity()) {
    PrefixSearch search({p.keys + first * kChunk, p.cumulative + first * kChunk, p.chunks, kChunk},
                        room + kDrawThreads / 32, [&](unsigned c) { return p.sizes[first + c]; });
    if (search.prefix().count > static_cast<uint32_t>(params.top_k) && params.top_k > 0)
      search.first_where({Goal::Kind::kCount, static_cast<uint32_t>(params.top_k)});
    if (params.top_p < 1.0f)
      search.first_where({Goal::Kind::kReach, 0, static_cast<double>(params.top_p) * search.prefix().weight});
    key = search.first_where({Goal::Kind::kPass, 0, params.draw * search.prefix().weight});
  }
  if (thread_index().x == 0) p.chosen[row] = id_of(key);
}

// ---- log-probabilities ----
struct LogprobParams {
  Rows<const float> logits;
  const SoftmaxStats* stats;  // [rows, chunks]
  unsigned chunks, num_top;
  const int32_t* chosen;   // [rows]
  float* chosen_logprobs;  // [rows]
  const int32_t* top_ids;  // [rows, num_top]
  float* top_logprobs;     // [rows, num_top]
};

/// fold_log_sum_exp of worker/ops/logits.cc by a warp, its bits: the running maxima first, then all exponentials side
/// by side, then the sums, left to right. `room`: three floats a chunk.
__device__ __forceinline__ float log_sum_exp(const SoftmaxStats* stats, unsigned chunks, float* room) {
  float *max_before = room, *max_after = room + chunks, *sums = room + 2 * chunks;
  for (unsigned c = lane(); c < chunks; c += 32) max_after[c] = stats[c].max, sums[c] = stats[c].sum;
  sync_warp();
  float max = -infinity();
  if (lane() == 0)
    for (unsigned c = 0; c < chunks; ++c) {
      max_before[c] = max;
      const float chunk_max = max_after[c], larger = max > chunk_max ? max : chunk_max;
      if (larger == -infinity())
        max_before[c] = max_after[c] = 0.0f;  // nothing but masked ids so far: the factors below become 1 and 0
      else
        max_after[c] = max = larger;
    }
  sync_warp();
  for (unsigned c = lane(); c < chunks; c += 32) {
    max_before[c] = exp_of(max_before[c] - max_after[c]);
    sums[c] = sums[c] * exp_of(stats[c].max - max_after[c]);
  }
  sync_warp();
  float sum = 0.0f;
  if (lane() == 0)
    for (unsigned c = 0; c < chunks; ++c) sum = sum * max_before[c] + sums[c];
  return shuffle(max + log_of(sum), 0);
}

__global__ void __launch_bounds__(32) logprob_kernel(LogprobParams p) {
  const unsigned row = block_index().x;
  const float log_sum = log_sum_exp(p.stats + size_t{row} * p.chunks, p.chunks, shared_memory<float>());
  const float* logits = p.logits.row(row);
  if (lane() == 0) p.chosen_logprobs[row] = logits[p.chosen[row]] - log_sum;
  for (unsigned i = lane(); i < p.num_top; i += 32) {
    const size_t place = size_t{row} * p.num_top + i;
    p.top_logprobs[place] = logits[p.top_ids[place]] - log_sum;
  }
}

// ---- host ----
/// Rows [begin, end) choose.
void choose(OpContext& ctx, const SampleArgs& args, int64_t begin, int64_t end) {
  const Workspace::Scope scope(ctx.scratch);
  const auto rows = static_cast<unsigned>(end - begin), chunks = ceil_div(args.logits.cols, kChunk);
  const int64_t tasks = int64_t{rows} * chunks, ids = args.mix == RowMix::kAny ? tasks * kChunk : 0;
  const ChunkParams chunk{rows_of<const float>(args.logits.row_range(begin, end)),
                          args.logits.cols,
                          chunks,
                          args.rows + begin,
                          args.bias_ids,
                          args.bias_values,
                          args.banned_ids,
                          args.counts,
                          ctx.scratch.take<uint64_t>(tasks),
                          ctx.scratch.take<uint64_t>(ids),
                          ctx.scratch.take<double>(ids),
                          ctx.scratch.take<uint32_t>(tasks)};
  const LaunchShape shape{.grid = {static_cast<unsigned>(tasks)},
                          .block = {kSortThreads},
                          .shared_bytes = kSortThreads / 32 * sizeof(uint64_t) + kChunk * sizeof(float)};
  launch(ctx, adjust_kernel, shape, chunk);
  if (args.mix == RowMix::kAny)
    launch(ctx, sort_kernel, {.grid = shape.grid, .block = shape.block, .shared_bytes = sizeof(SortRoom)}, chunk);
  launch(ctx, draw_kernel,
         {.grid = {rows},
          .block = {kDrawThreads},
          .shared_bytes = kDrawThreads / 32 * sizeof(uint64_t) + PrefixSearch::bytes(chunks)},
         DrawParams{args.rows + begin, chunk.best, chunk.keys, chunk.cumulative, chunk.sizes, chunks,
                    args.chosen + begin});
}

void sample_launch(OpContext& ctx, const SampleArgs& args) {
  const unsigned chunks = ceil_div(args.logits.cols, kChunk);
  constexpr int64_t kBytesPerId = sizeof(uint64_t) + sizeof(double);
  const int64_t slab = std::max<int64_t>(1, kSlabBytes / (int64_t{chunks} * kChunk * kBytesPerId));
  for (int64_t begin = 0; begin < args.logits.rows; begin += slab)
    choose(ctx, args, begin, std::min(begin + slab, args.logits.rows));

  const Workspace::Scope scope(ctx.scratch);
  auto* stats = ctx.scratch.take<SoftmaxStats>(args.logits.rows * chunks);
  logit_stats(ctx, {.logits = args.logits, .stats = stats});
  if (args.num_top > 0) top_k(ctx, {.logits = args.logits, .k = args.num_top, .ids = args.top_ids});
  launch(ctx, logprob_kernel,
         {.grid = {static_cast<unsigned>(args.logits.rows)},
          .block = {32},
          .shared_bytes = size_t{3} * chunks * sizeof(float)},
         LogprobParams{rows_of<const float>(args.logits), stats, chunks, static_cast<unsigned>(args.num_top),
                       args.chosen, args.chosen_logprobs, args.top_ids, args.top_logprobs});
}

bool sample_supports(const OpContext&, const SampleArgs& args) { return args.logits.cols <= kMaxIds; }

// ---- count_tokens ----
__global__ void __launch_bounds__(kDrawThreads) count_kernel(CountTokensArgs p) {
  const int64_t i = int64_t{block_index().x} * kDrawThreads + thread_index().x;
  if (i >= p.num_tokens || p.slots[i] < 0 || p.ids[i] < 0 || p.ids[i] >= p.vocab) return;
  TokenCount* count = p.counts + p.slots[i] * p.vocab + p.ids[i];
  if (p.origin == TokenOrigin::kPrompt)
    *count = 1;  // every thread that comes here writes the same
  else
    atomic_add(count, TokenCount{2});
}

void count_tokens_launch(OpContext& ctx, const CountTokensArgs& args) {
  launch(ctx, count_kernel, {.grid = {ceil_div(args.num_tokens, kDrawThreads)}, .block = {kDrawThreads}}, args);
}

constexpr auto kIsa = parallel::Isa::kScalar;
const KernelTable<SampleArgs>::Add kAdd1({"sample_chunks", kKernelDevice, kIsa, 0, sample_supports, sample_launch});
const KernelTable<CountTokensArgs>::Add kAdd2({"count_tokens_atomic", kKernelDevice, kIsa, 0, supports_all,
                                               count_tokens_launch});

}  // namespace
}  // namespace chorale::worker
