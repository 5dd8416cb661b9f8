#include "worker/ops/packed_weight.h"

#include <algorithm>

namespace chorale::worker {
namespace {

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

}  // namespace

int64_t PackedWeight::padded_leaf_begin(int leaf) const {
  if (dtype == DType::kF32) return leaf_begin[static_cast<size_t>(leaf)];
  int64_t begin = 0;
  for (int i = 0; i < leaf; ++i)
    begin += (leaf_begin[static_cast<size_t>(i) + 1] - leaf_begin[static_cast<size_t>(i)] + 1) / 2 * 2;
  return begin;
}

WeightOrder weight_order(DeviceKind device, DType dtype) {
  return device == DeviceKind::kCpu || dtype == DType::kF32 ? WeightOrder::kPanels : WeightOrder::kFragments;
}

PackedWeight to_device(const PackedWeight& weight, Device& device, Stream& stream) {
  PackedWeight copy;
  copy.order = weight.order;
  copy.dtype = weight.dtype;
  copy.n = weight.n;
  copy.k = weight.k;
  copy.first_leaf = weight.first_leaf;
  copy.leaf_begin = weight.leaf_begin;
  copy.data = copy_to_device({&device, &stream}, weight.data);
  return copy;
}

PackedWeight make_packed_weight(DType dtype, int64_t n, int64_t k, std::vector<int64_t> leaf_begin, int first_leaf,
                                WeightOrder order) {
  CHECK(order == WeightOrder::kPanels);
  if (dtype != DType::kF32 && dtype != DType::kBF16)
    fail(ErrorCode::kInvalidArgument, "weights are packed as f32 or bf16, not {}", to_string(dtype));
  if (leaf_begin.empty()) leaf_begin = {0, k};
  const bool ascends = std::is_sorted(leaf_begin.begin(), leaf_begin.end());
  if (n < 0 || k < 0 || leaf_begin.size() < 2 || leaf_begin.front() != 0 || leaf_begin.back() != k || !ascends)
    fail(ErrorCode::kInvalidArgument, "a weight of {} inputs needs leaves that ascend from 0 to {}", k, k);
  PackedWeight weight;
  weight.dtype = dtype;
  weight.n = n;
  weight.k = k;
  weight.first_leaf = first_leaf;
  weight.leaf_begin = std::move(leaf_begin);
  weight.data = Tensor(dtype, {weight.padded_n() * weight.padded_k()});
  return weight;
}

void pack_rows(PackedWeight& weight, int64_t first_row, int64_t num_rows, const float* rows) {
  CHECK(first_row >= 0 && num_rows >= 0 && first_row + num_rows <= weight.n);
  for (int64_t begin = first_row; begin < first_row + num_rows;) {
    // At most 16 neighbouring outputs of one panel at a time: their elements of one k share cache lines.
    const int64_t end = std::min(first_row + num_rows, (begin / kLaneWidth + 1) * kLaneWidth);
    const Panel panel = panel_of(weight, begin / kPanelWidth);
    const int64_t column = begin % kPanelWidth;
    const float* source = rows + (begin - first_row) * weight.k;
    for (int leaf = 0; leaf < weight.num_leaves(); ++leaf) {
      const int64_t leaf_begin = weight.leaf_begin[static_cast<size_t>(leaf)],
                    leaf_end = weight.leaf_begin[static_cast<size_t>(leaf) + 1];
      const int64_t shift = weight.padded_leaf_begin(leaf) - leaf_begin;
      for (int64_t k = leaf_begin; k < leaf_end; ++k) {
        if (weight.dtype == DType::kF32) {
          float* out = weight.data.as<float>() + panel.begin + k * panel.width + column;
          for (int64_t i = 0; i < end - begin; ++i) out[i] = source[i * weight.k + k];
        } else {
          BFloat16* out = weight.data.as<BFloat16>() + bf16_index(panel, column, k + shift);
          for (int64_t i = 0; i < end - begin; ++i) out[2 * i] = to_bf16(source[i * weight.k + k]);
        }
      }
    }
    begin = end;
  }
}

float packed_at(const PackedWeight& weight, int64_t row, int64_t col) {
  const Panel panel = panel_of(weight, row / kPanelWidth);
  const int64_t column = row % kPanelWidth;
  if (weight.dtype == DType::kF32) return weight.data.as<float>()[panel.begin + col * panel.width + column];
  const auto next = std::upper_bound(weight.leaf_begin.begin(), weight.leaf_begin.end(), col);
  const int leaf = static_cast<int>(next - weight.leaf_begin.begin()) - 1;
  const int64_t padded = col - weight.leaf_begin[static_cast<size_t>(leaf)] + weight.padded_leaf_begin(leaf);
  return to_float(weight.data.as<BFloat16>()[bf16_index(panel, column, padded)]);
}

}  // namespace chorale::worker
