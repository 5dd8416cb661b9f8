#include "worker/kernels/cpu/attention_tiles.h"
#include "worker/thread_pool.h"

#include <algorithm>
#include <atomic>

namespace chorale::worker::tiles {
namespace {

/// (sequence, KV head, first item, number of items); items count rows x heads of the group, heads fastest.
struct Unit {
  int32_t sequence;
  int32_t first_head;  // of the KV head's group
  int32_t group;       // heads in it
  int32_t first_item;
  int32_t num_items;
};

/// Heads [first, first + group) read one KV head.
int group_size(const AttentionArgs& args, int first) {
  int end = first + 1;
  while (end < args.num_heads && args.kv_head_of[end] == args.kv_head_of[first]) ++end;
  return end - first;
}

/// Whole rows of the group where they fit: their visible keys are then equal.
int items_per_tile(int group, int max_items) { return group <= max_items ? max_items / group * group : max_items; }

/// Calls fn(unit) for every unit of the batch.
template <typename Fn>
void for_units(const AttentionArgs& args, int max_items, const Fn& fn) {
  for (int s = 0; s < args.num_sequences; ++s) {
    const int rows = args.query_start[s + 1] - args.query_start[s];
    for (int head = 0; head < args.num_heads;) {
      const int group = group_size(args, head), step = items_per_tile(group, max_items), total = rows * group;
      for (int item = 0; item < total; item += step) fn(Unit{s, head, group, item, std::min(step, total - item)});
      head += group;
    }
  }
}

Tile make_tile(const AttentionArgs& args, const Unit& unit) {
  Tile tile;
  tile.args = &args;
  tile.block_table = args.block_table + unit.sequence * args.block_table_stride;
  tile.kv_head = args.kv_head_of[unit.first_head];
  tile.num_items = unit.num_items;
  tile.min_key = INT32_MAX;
  tile.max_key = 0;
  const int first_row = args.query_start[unit.sequence], end_row = args.query_start[unit.sequence + 1];
  const int context = args.context_len[unit.sequence];
  const int64_t dim = args.cache.head_dim, out_size = static_cast<int64_t>(size_of(args.out.dtype));
  for (int i = 0; i < unit.num_items; ++i) {
    const int row = first_row + (unit.first_item + i) / unit.group;
    const int64_t column = (unit.first_head + (unit.first_item + i) % unit.group) * dim;
    tile.q[i] = args.q.row<float>(row) + column;
    tile.out[i] = static_cast<std::byte*>(args.out.data) + (row * args.out.row_stride + column) * out_size;
    const int end = args.mask == AttentionMask::kCausal ? context - end_row + row + 1 : context;
    tile.end_key[i] = end;
    tile.first_key[i] = args.mask == AttentionMask::kCausal && args.window > 0 ? std::max(0, end - args.window) : 0;
    tile.min_key = std::min(tile.min_key, tile.first_key[i]);
    tile.max_key = std::max(tile.max_key, end);
  }
  const bool only_reader = unit.num_items == (end_row - first_row) * unit.group;
  tile.prefetch_blocks = only_reader ? (tile.max_key + kBlockTokens - 1) / kBlockTokens : 0;
  return tile;
}

/// Units are taken one after the other by whichever thread is free: which thread computes a row does not change it.
template <typename Fn>
void for_each_dynamic(ThreadPool& pool, int64_t n, const Fn& fn) {
  if (n == 1 || pool.num_threads() == 1) {
    for (int64_t i = 0; i < n; ++i) fn(i);
    return;
  }
  std::atomic<int64_t> next{0};
  pool.run([&](int) {
    for (int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < n;
         i = next.fetch_add(1, std::memory_order_relaxed))
      fn(i);
  });
}

/// Few units with long contexts: threads take (unit, split) pairs, then each unit folds its splits.
void run_by_splits(OpContext& ctx, const AttentionArgs& args, const TileFunctions& functions, const Unit* units,
                   int64_t num_units) {
  struct Part {
    int32_t unit;
    int32_t split;
    int64_t state;  // index of its first state
  };
  const int64_t stride = kStateHeader + args.cache.padded_head_dim();
  int64_t num_parts = 0;
  for (int64_t u = 0; u < num_units; ++u) {
    const Tile tile = make_tile(args, units[u]);
    num_parts += tile.end_split() - tile.first_split();
  }
  Part* parts = ctx.scratch.take<Part>(num_parts);
  int64_t* first_state = ctx.scratch.take<int64_t>(num_units);
  int64_t num_states = 0;
  num_parts = 0;
  for (int64_t u = 0; u < num_units; ++u) {
    const Tile tile = make_tile(args, units[u]);
    first_state[u] = num_states;
    for (int split = tile.first_split(); split < tile.end_split(); ++split) {
      parts[num_parts++] = {static_cast<int32_t>(u), split, num_states};
      num_states += units[u].num_items;
    }
  }
  float* states = ctx.scratch.take<float>(num_states * stride);
  for_each_dynamic(ctx.pool, num_parts, [&](int64_t i) {
    functions.attend_split(make_tile(args, units[parts[i].unit]), parts[i].split, states + parts[i].state * stride,
                           stride);
  });
  for_each_dynamic(ctx.pool, num_units, [&](int64_t u) {
    const Tile tile = make_tile(args, units[u]);
    functions.finish(tile, states + first_state[u] * stride, tile.end_split() - tile.first_split(), stride);
  });
}

}  // namespace

void run_attention(OpContext& ctx, const AttentionArgs& args, const TileFunctions& functions) {
  Workspace::Scope scope(ctx.scratch);
  int64_t num_units = 0;
  for_units(args, functions.max_items, [&](const Unit&) { ++num_units; });
  Unit* units = ctx.scratch.take<Unit>(num_units);
  int64_t i = 0;
  for_units(args, functions.max_items, [&](const Unit& unit) { units[i++] = unit; });
  const int longest = *std::max_element(args.context_len, args.context_len + args.num_sequences);
  if (ctx.pool.num_threads() > 1 && num_units < 4 * ctx.pool.num_threads() && longest > kSplitKeys)
    return run_by_splits(ctx, args, functions, units, num_units);
  for_each_dynamic(ctx.pool, num_units, [&](int64_t u) { functions.attend(make_tile(args, units[u])); });
}

}  // namespace chorale::worker::tiles
