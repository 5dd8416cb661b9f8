#include "worker/kernels/cpu/linear_panels.h"
#include "worker/thread_pool.h"

#include <algorithm>

namespace chorale::worker::panels {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kNearBytes = 4096;             // prefetch distance of a single sequential stream
constexpr int64_t kStreamChunkBytes = 32 << 10;  // weights between two visits of a column when one tile holds all rows
constexpr int64_t kReuseChunkBytes = 128 << 10;  // weights that stay in L2 while every row tile passes over them
constexpr int kMaxLeaves = 64;
constexpr int64_t kMaxBlockRows =
    18 * kMaxTileRows;  // rows a pass over a panel, one leaf; their packed x shares L2 with the weights
constexpr int64_t kMaxBlockRowsOfTree = 8 * kMaxTileRows;  // with several levels of sums

/// Rows of x cut into tiles of nearly equal height, packed as the tiles read them.
struct PackedRows {
  int64_t num_rows = 0;
  int64_t num_tiles = 0;
  int64_t words_per_row = 0;  // of one row in its tile
  int64_t gap = 0;            // spare words between tiles: no cache line is shared by two threads
  uint32_t* words = nullptr;

  int64_t first_row(int64_t tile) const { return num_rows * tile / num_tiles; }
  int rows(int64_t tile) const { return static_cast<int>(first_row(tile + 1) - first_row(tile)); }
  uint32_t* begin(int64_t tile) const { return words + first_row(tile) * words_per_row + tile * gap; }
};

struct Problem {
  const LinearArgs& args;
  const TileSet& tiles;
  PackedRows x;
  int64_t padded_begin[kMaxLeaves + 1];  // of each local leaf
  uint8_t merges[kMaxLeaves];            // additions that follow a leaf
  int depth;                             // levels of running sums
  std::span<const comm::LeafRange> nodes;
  int64_t steps(int64_t k) const { return k / tiles.k_per_step; }
};

int64_t max_block_rows(const Problem& p) {
  return (p.depth > 1 ? kMaxBlockRowsOfTree : kMaxBlockRows) / p.tiles.words_per_step;
}

/// Counts, for every leaf, the nodes that are complete once it is: its sum is then added to that many left siblings,
/// innermost first.
void count_merges(Problem& p, comm::LeafRange node) {
  if (node.size() == 1) return;
  const int split = comm::split_point(node);
  count_merges(p, {node.begin, split});
  count_merges(p, {split, node.end});
  ++p.merges[node.end - 1];
}

void pack_tile(const Problem& p, int64_t tile) {
  const PackedWeight& w = *p.args.weight;
  const int rows = p.x.rows(tile);
  for (int r = 0; r < rows; ++r) {
    const auto* source = static_cast<const std::byte*>(p.args.x.data) +
                         (p.x.first_row(tile) + r) * p.args.x.row_stride * static_cast<int64_t>(size_of(w.dtype));
    for (int leaf = 0; leaf < w.num_leaves(); ++leaf) {
      const int64_t k = w.leaf_begin[static_cast<size_t>(leaf)];
      const int64_t length = w.leaf_begin[static_cast<size_t>(leaf) + 1] - k;
      const int64_t step = p.steps(p.padded_begin[leaf]);
      p.tiles.pack(source + k * static_cast<int64_t>(size_of(w.dtype)), length,
                   p.x.begin(tile) + step * p.tiles.words_per_step * rows + r, rows);
    }
  }
}

/// Some columns of one panel.
struct Columns {
  const std::byte* w;    // the panel's first step
  int64_t step_bytes;    // panel width * 4
  int begin, end;        // vectors of 16 columns
  int64_t first_output;  // of the panel
};

/// Row tiles [begin, end) and the running sums of their rows.
struct RowBlock {
  int64_t begin, end;
  float* sums;           // [depth][rows][kPanelWidth]
  int64_t level_stride;  // floats
};

int widest(const Problem& p, int rows, int vectors) {
  for (int log2 = kMaxWidthLog2; log2 > 0; --log2)
    if ((1 << log2) <= vectors && p.tiles.tile[rows][log2] != nullptr) return log2;
  return 0;
}

/// Steps [begin, end) of one leaf for all row tiles and columns. The weights of these steps stay in the cache; every
/// call also fetches its share of the steps that follow them in memory.
void run_chunk(const Problem& p, const Columns& c, const RowBlock& block, int64_t begin, int64_t end, int level,
               bool resume, int merges) {
  const int64_t steps = end - begin;
  const std::byte* w = c.w + begin * c.step_bytes;
  const std::byte* ahead = w + steps * c.step_bytes;
  const std::byte* ahead_end = ahead + steps * c.step_bytes;
  const bool one_tile = block.end - block.begin == 1;
  const int64_t first_row = p.x.first_row(block.begin);
  for (int64_t t = block.begin; t < block.end; ++t) {
    const int rows = p.x.rows(t);
    for (int v = c.begin; v < c.end;) {
      const int log2 = widest(p, rows, c.end - v);
      TileCall call;
      call.w = w + v * kLineBytes;
      call.w_step = c.step_bytes;
      call.steps = steps;
      call.x = p.x.begin(t) + begin * p.tiles.words_per_step * rows;
      call.sums =
          block.sums + level * block.level_stride + (p.x.first_row(t) - first_row) * kPanelWidth + v * kLaneWidth;
      call.resume = resume;
      call.num_merges = merges;
      call.merge_stride = block.level_stride;
      const int lines = 1 << log2;  // a call of this width reads that many cache lines a step
      if (one_tile && lines == c.end - c.begin) {
        call.prefetch = call.w + kNearBytes;
        call.prefetch_step = c.step_bytes;
        call.prefetch_lines = lines;
      } else {
        call.prefetch = ahead;
        call.prefetch_lines = ahead >= ahead_end ? 0 : one_tile ? lines : 1;
        call.prefetch_step = kLineBytes * call.prefetch_lines;
        ahead += steps * call.prefetch_step;
      }
      p.tiles.tile[rows][log2](call);
      v += 1 << log2;
    }
  }
}

/// One node of the tree: its leaves left to right over a stack of running sums; the result ends in level 0.
void run_node(const Problem& p, const Columns& c, const RowBlock& block, comm::LeafRange node) {
  const bool stream = block.end - block.begin == 1;
  const int64_t chunk = std::max<int64_t>(16, (stream ? kStreamChunkBytes : kReuseChunkBytes) / c.step_bytes);
  const bool whole_width = stream && (1 << widest(p, p.x.rows(block.begin), c.end - c.begin)) == c.end - c.begin;
  int level = 0;
  for (int leaf = node.begin; leaf < node.end; ++leaf) {
    const int64_t leaf_begin = p.steps(p.padded_begin[leaf]), leaf_end = p.steps(p.padded_begin[leaf + 1]);
    const int64_t steps = std::max<int64_t>(1, leaf_end - leaf_begin);
    const int64_t num_chunks = whole_width ? 1 : (steps + chunk - 1) / chunk;
    const int64_t length = (steps + num_chunks - 1) / num_chunks;  // nearly equal: each fetches one of its size ahead
    int64_t begin = leaf_begin;
    do {
      const int64_t end = std::min(leaf_end, begin + length);
      run_chunk(p, c, block, begin, end, level, begin > leaf_begin, end == leaf_end ? p.merges[leaf] : 0);
      begin = end;
    } while (begin < leaf_end);
    level += 1 - p.merges[leaf];
  }
}

void store_node(const Problem& p, const Columns& c, const RowBlock& block, int64_t node) {
  const LinearArgs& args = p.args;
  const int64_t begin = c.first_output + c.begin * kLaneWidth,
                end = std::min(args.weight->n, c.first_output + c.end * kLaneWidth);
  const int64_t first_row = p.x.first_row(block.begin), end_row = p.x.first_row(block.end);
  for (int64_t row = first_row; row < end_row; ++row) {
    const float* sums = block.sums + (row - first_row) * kPanelWidth - c.first_output;
    float* out = args.out.row<float>(node * args.x.rows + row);
    if (args.bias != nullptr)
      for (int64_t i = begin; i < end; ++i) out[i] = sums[i] + args.bias[i];
    else
      std::copy(sums + begin, sums + end, out + begin);
  }
}

/// Columns [begin, end) in vectors of 16 over the whole weight, for row tiles [tile_begin, tile_end).
void run_part(const Problem& p, int64_t begin, int64_t end, int64_t tile_begin, int64_t tile_end, float* sums) {
  const PackedWeight& w = *p.args.weight;
  constexpr int64_t kPanelVectors = kPanelWidth / kLaneWidth;
  const auto* data = static_cast<const std::byte*>(w.data.view().data);
  const int64_t block_tiles = std::max<int64_t>(1, max_block_rows(p) / p.tiles.max_rows);
  for (int64_t v = begin; v < end;) {
    const int64_t panel = v / kPanelVectors, panel_end = std::min(end, (panel + 1) * kPanelVectors);
    const int64_t width = std::min(kPanelWidth, w.padded_n() - panel * kPanelWidth);
    const Columns columns{
        data + panel * kPanelWidth * p.padded_begin[w.num_leaves()] * static_cast<int64_t>(size_of(w.dtype)), width * 4,
        static_cast<int>(v - panel * kPanelVectors), static_cast<int>(panel_end - panel * kPanelVectors),
        panel * kPanelWidth};
    for (int64_t t = tile_begin; t < tile_end; t += block_tiles) {
      const int64_t t_end = std::min(tile_end, t + block_tiles);
      const RowBlock block{t, t_end, sums, (p.x.first_row(t_end) - p.x.first_row(t)) * kPanelWidth};
      for (size_t node = 0; node < p.nodes.size(); ++node) {
        const comm::LeafRange local{p.nodes[node].begin - w.first_leaf, p.nodes[node].end - w.first_leaf};
        run_node(p, columns, block, local);
        store_node(p, columns, block, static_cast<int64_t>(node));
      }
    }
    v = panel_end;
  }
}

}  // namespace

void run_linear(OpContext& ctx, const LinearArgs& args, const TileSet& tiles) {
  const PackedWeight& w = *args.weight;
  const int num_leaves = w.num_leaves();
  CHECK_LE(num_leaves, kMaxLeaves);
  const comm::LeafRange whole{w.first_leaf, w.first_leaf + num_leaves};
  Problem p{args, tiles, {}, {}, {}, 1, args.nodes.empty() ? std::span(&whole, 1) : args.nodes};
  for (int i = 0; i <= num_leaves; ++i) p.padded_begin[i] = w.padded_leaf_begin(i);
  for (const comm::LeafRange& node : p.nodes) {
    count_merges(p, {node.begin - w.first_leaf, node.end - w.first_leaf});
    int depth = 1;
    while ((1 << (depth - 1)) < node.size()) ++depth;
    p.depth = std::max(p.depth, depth);
  }

  Workspace::Scope scope(ctx.scratch);
  p.x.num_rows = args.x.rows;
  p.x.num_tiles = (args.x.rows + tiles.max_rows - 1) / tiles.max_rows;
  p.x.words_per_row = p.steps(p.padded_begin[num_leaves]) * tiles.words_per_step;
  p.x.gap = 16;
  p.x.words = ctx.scratch.take<uint32_t>(p.x.num_rows * p.x.words_per_row + p.x.num_tiles * p.x.gap);
  const int64_t block_rows = std::min(args.x.rows, max_block_rows(p));
  const int64_t sums_floats = (block_rows + kMaxTileRows) * kPanelWidth * p.depth;
  float* sums = ctx.scratch.take<float>(sums_floats * ctx.pool.num_threads());

  ctx.pool.parallel_for(p.x.num_tiles, [&](int64_t begin, int64_t end, int) {
    for (int64_t tile = begin; tile < end; ++tile) pack_tile(p, tile);
  });

  // Threads split columns in pairs of vectors, and row tiles only when there are too few columns.
  const int64_t num_vectors = w.padded_n() / kLaneWidth, num_pairs = (num_vectors + 1) / 2;
  const int64_t column_parts = std::min<int64_t>(ctx.pool.num_threads(), num_pairs);
  const int64_t row_parts = std::min<int64_t>(p.x.num_tiles, ctx.pool.num_threads() / column_parts);
  ctx.pool.parallel_for(column_parts * row_parts, [&](int64_t begin, int64_t end, int thread) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t c = part % column_parts, r = part / column_parts;
      run_part(p, num_pairs * c / column_parts * 2, std::min(num_vectors, num_pairs * (c + 1) / column_parts * 2),
               p.x.num_tiles * r / row_parts, p.x.num_tiles * (r + 1) / row_parts, sums + thread * sums_floats);
    }
  });
}

}  // namespace chorale::worker::panels
