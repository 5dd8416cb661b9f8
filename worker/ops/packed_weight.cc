#include "worker/ops/packed_weight.h"

#include <algorithm>

namespace chorale::worker {
namespace {

constexpr int64_t kFragmentSide = 16;  // outputs and k of a fragment
constexpr int64_t kFragmentElements = kFragmentSide * kFragmentSide;

/// Leaves are padded with zeros to a multiple of this.
int64_t leaf_alignment(const PackedWeight& w) {
  if (w.order == WeightOrder::kFragments) return kFragmentSide;
  if (w.order == WeightOrder::kRowMajor) return 1;
  return w.dtype == DType::kF32 ? 1 : 2;
}

int64_t leaf_length(const PackedWeight& w, int leaf) {
  return w.leaf_begin[static_cast<size_t>(leaf) + 1] - w.leaf_begin[static_cast<size_t>(leaf)];
}

/// Where panel `panel` starts (elements) and how wide it is.
struct Panel {
  int64_t begin;
  int64_t width;
};
Panel panel_of(const PackedWeight& w, int64_t panel) {
  return {panel * kPanelWidth * w.padded_k(), std::min(kPanelWidth, w.padded_n() - panel * kPanelWidth)};
}

int64_t bf16_index(const Panel& panel, int64_t column, int64_t padded_k) {
  return panel.begin + (padded_k / 2 * panel.width + column) * 2 + (padded_k % 2 == 0 ? 1 : 0);
}

/// Element (row, column) of a fragment; an even column and the next one are neighbours.
int64_t index_in_fragment(int64_t row, int64_t column) {
  const int64_t lane = row % 8 * 4 + column % 8 / 2, reg = row / 8 + 2 * (column / 8);
  return lane * 8 + reg * 2 + column % 2;
}

BFloat16 round_to(BFloat16, float x) { return to_bf16(x); }
Float16 round_to(Float16, float x) { return to_f16(x); }

uint16_t* fragment(const PackedWeight& w, int64_t tile, int64_t step) {
  return static_cast<uint16_t*>(w.data.view().data) +
         (tile * (w.padded_k() / kFragmentSide) + step) * kFragmentElements;
}

/// Outputs [first_row, first_row + num_rows) from `rows` [num_rows, k].
template <typename T>
void pack_row_major(PackedWeight& w, int64_t first_row, int64_t num_rows, const float* rows) {
  T* out = w.data.as<T>() + first_row * w.k;
  for (int64_t i = 0; i < num_rows * w.k; ++i) out[i] = round_to(T{}, rows[i]);
}

float widened(DType dtype, uint16_t bits) {
  return dtype == DType::kBF16 ? to_float(BFloat16{bits}) : to_float(Float16{bits});
}

/// Outputs [column, column + num_rows) of `panel` from `rows` [num_rows, k].
void pack_panel(PackedWeight& w, const Panel& panel, int64_t column, int64_t num_rows, const float* rows) {
  for (int leaf = 0; leaf < w.num_leaves(); ++leaf) {
    const int64_t leaf_begin = w.leaf_begin[static_cast<size_t>(leaf)], leaf_end = leaf_begin + leaf_length(w, leaf);
    const int64_t shift = w.padded_leaf_begin(leaf) - leaf_begin;
    for (int64_t k = leaf_begin; k < leaf_end; ++k) {
      if (w.dtype == DType::kF32) {
        float* out = w.data.as<float>() + panel.begin + k * panel.width + column;
        for (int64_t i = 0; i < num_rows; ++i) out[i] = rows[i * w.k + k];
      } else {
        BFloat16* out = w.data.as<BFloat16>() + bf16_index(panel, column, k + shift);
        for (int64_t i = 0; i < num_rows; ++i) out[2 * i] = to_bf16(rows[i * w.k + k]);
      }
    }
  }
}

/// `width` elements of row `row` of a fragment. Whole rows, the most, go in a loop of known length.
template <typename T>
void pack_fragment_row(uint16_t* out, int64_t row, int64_t width, const float* values) {
  const auto put = [&](int64_t column) { out[index_in_fragment(row, column)] = round_to(T{}, values[column]).bits; };
  if (width == kFragmentSide)
    for (int64_t column = 0; column < kFragmentSide; ++column) put(column);
  else
    for (int64_t column = 0; column < width; ++column) put(column);
}

/// Rows [first_row, first_row + num_rows) of output tile `tile` from `rows` [num_rows, k]: a fragment after the other,
/// so that its 512 bytes are written while they are in the nearest cache.
template <typename T>
void pack_fragments(PackedWeight& w, int64_t tile, int64_t first_row, int64_t num_rows, const float* rows) {
  for (int leaf = 0; leaf < w.num_leaves(); ++leaf) {
    const int64_t length = leaf_length(w, leaf);
    const float* leaf_rows = rows + w.leaf_begin[static_cast<size_t>(leaf)];
    uint16_t* out = fragment(w, tile, w.padded_leaf_begin(leaf) / kFragmentSide);
    for (int64_t k = 0; k < length; k += kFragmentSide, out += kFragmentElements)
      for (int64_t i = 0; i < num_rows; ++i)
        pack_fragment_row<T>(out, first_row + i, std::min(kFragmentSide, length - k), leaf_rows + i * w.k + k);
  }
}

void check_format(DType dtype, WeightOrder order) {
  if (order == WeightOrder::kPanels && dtype != DType::kF32 && dtype != DType::kBF16)
    fail(ErrorCode::kInvalidArgument, "weights are packed in panels as f32 or bf16, not {}", to_string(dtype));
  if (order != WeightOrder::kPanels && dtype != DType::kBF16 && dtype != DType::kF16)
    fail(ErrorCode::kInvalidArgument, "weights are packed in {} as bf16 or f16, not {}",
         order == WeightOrder::kFragments ? "fragments" : "rows", to_string(dtype));
}

}  // namespace

int64_t PackedWeight::padded_leaf_begin(int leaf) const {
  const int64_t alignment = leaf_alignment(*this);
  int64_t begin = 0;
  for (int i = 0; i < leaf; ++i) begin += (leaf_length(*this, i) + alignment - 1) / alignment * alignment;
  return begin;
}

WeightOrder weight_order(DeviceKind device, DType dtype) {
  return device == DeviceKind::kCpu || dtype == DType::kF32 ? WeightOrder::kPanels : WeightOrder::kFragments;
}

std::vector<int64_t> checked_leaves(int64_t n, int64_t k, std::vector<int64_t> leaf_begin) {
  if (leaf_begin.empty()) leaf_begin = {0, k};
  const bool ascends = std::is_sorted(leaf_begin.begin(), leaf_begin.end());
  if (n < 0 || k < 0 || leaf_begin.size() < 2 || leaf_begin.front() != 0 || leaf_begin.back() != k || !ascends)
    fail(ErrorCode::kInvalidArgument, "a weight of {} inputs needs leaves that ascend from 0 to {}", k, k);
  return leaf_begin;
}

PackedWeight make_packed_weight(DType dtype, int64_t n, int64_t k, std::vector<int64_t> leaf_begin, int first_leaf,
                                WeightOrder order) {
  check_format(dtype, order);
  leaf_begin = checked_leaves(n, k, std::move(leaf_begin));
  if (order == WeightOrder::kRowMajor && leaf_begin.size() != 2)
    fail(ErrorCode::kInvalidArgument, "a weight in rows has one leaf, not {}", leaf_begin.size() - 1);
  PackedWeight weight;
  weight.order = order;
  weight.dtype = dtype;
  weight.n = n;
  weight.k = k;
  weight.first_leaf = first_leaf;
  weight.leaf_begin = std::move(leaf_begin);
  weight.data = Tensor(dtype, {(order == WeightOrder::kRowMajor ? n : weight.padded_n()) * weight.padded_k()});
  return weight;
}

PackedWeight to_device(const PackedWeight& weight, Device& device, Stream& stream) {
  PackedWeight copy;
  copy.order = weight.order;
  copy.dtype = weight.dtype;
  copy.n = weight.n;
  copy.k = weight.k;
  copy.first_leaf = weight.first_leaf;
  copy.leaf_begin = weight.leaf_begin;
  copy.library = weight.library;
  copy.data = copy_to_device({&device, &stream}, weight.data);
  return copy;
}

void pack_rows(PackedWeight& weight, int64_t first_row, int64_t num_rows, const float* rows) {
  CHECK(first_row >= 0 && num_rows >= 0 && first_row + num_rows <= weight.n);
  CHECK(weight.data.view().device == DeviceKind::kCpu);
  if (weight.order == WeightOrder::kRowMajor)
    return weight.dtype == DType::kBF16 ? pack_row_major<BFloat16>(weight, first_row, num_rows, rows)
                                        : pack_row_major<Float16>(weight, first_row, num_rows, rows);
  static_assert(kLaneWidth == kFragmentSide);
  for (int64_t begin = first_row; begin < first_row + num_rows;) {
    // At most 16 neighbouring outputs of one panel or tile at a time: their elements of one k share cache lines.
    const int64_t end = std::min(first_row + num_rows, (begin / kLaneWidth + 1) * kLaneWidth);
    const float* source = rows + (begin - first_row) * weight.k;
    if (weight.order == WeightOrder::kPanels)
      pack_panel(weight, panel_of(weight, begin / kPanelWidth), begin % kPanelWidth, end - begin, source);
    else if (weight.dtype == DType::kBF16)
      pack_fragments<BFloat16>(weight, begin / kFragmentSide, begin % kFragmentSide, end - begin, source);
    else
      pack_fragments<Float16>(weight, begin / kFragmentSide, begin % kFragmentSide, end - begin, source);
    begin = end;
  }
}

float packed_at(const PackedWeight& weight, int64_t row, int64_t col) {
  if (weight.order == WeightOrder::kRowMajor)
    return widened(weight.dtype, static_cast<const uint16_t*>(weight.data.view().data)[row * weight.k + col]);
  const auto next = std::upper_bound(weight.leaf_begin.begin(), weight.leaf_begin.end(), col);
  const int leaf = static_cast<int>(next - weight.leaf_begin.begin()) - 1;
  const int64_t padded = col - weight.leaf_begin[static_cast<size_t>(leaf)] + weight.padded_leaf_begin(leaf);
  if (weight.order == WeightOrder::kFragments) {
    const uint16_t bits =
        fragment(weight, row / kFragmentSide,
                 padded / kFragmentSide)[index_in_fragment(row % kFragmentSide, padded % kFragmentSide)];
    return widened(weight.dtype, bits);
  }
  const Panel panel = panel_of(weight, row / kPanelWidth);
  const int64_t column = row % kPanelWidth;
  if (weight.dtype == DType::kF32) return weight.data.as<float>()[panel.begin + padded * panel.width + column];
  return to_float(weight.data.as<BFloat16>()[bf16_index(panel, column, padded)]);
}

}  // namespace chorale::worker
