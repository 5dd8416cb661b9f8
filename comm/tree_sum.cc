#include "comm/tree_sum.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "comm/base/error.h"

namespace chorale::comm {
namespace {

constexpr size_t kBlock = 512;  // floats a node contributes at a time: the sums of a block stay in L1

}  // namespace

void add_vectors(const float* left, const float* right, size_t count, float* out) {
  // `out` is at most exactly `left` or `right`, so no iteration reads what another wrote.
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) out[i] = left[i] + right[i];
}

void tree_sum(const TreeSchedule& schedule, std::span<const float* const> nodes, size_t count, float* out) {
  CHECK_EQ(nodes.size(), schedule.nodes.size());
  if (count == 0) return;
  const auto& additions = schedule.additions;
  if (additions.empty()) {
    if (out != nodes[0]) std::memcpy(out, nodes[0], count * sizeof(float));
    return;
  }
  if (additions.size() == 1) {
    add_vectors(nodes[additions[0].left], nodes[additions[0].right], count, out);
    return;
  }
  // The sum that ends in node k lives in row k of `rows` until the last addition writes the root to `out`.
  thread_local std::vector<float> rows;
  thread_local std::vector<const float*> current;
  rows.resize(std::max(rows.size(), nodes.size() * kBlock));
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t size = std::min(kBlock, count - begin);
    current.resize(nodes.size());
    for (size_t k = 0; k < nodes.size(); ++k) current[k] = nodes[k] + begin;
    for (size_t a = 0; a < additions.size(); ++a) {
      const auto [left, right] = additions[a];
      float* sum = a + 1 == additions.size() ? out + begin : rows.data() + left * kBlock;
      add_vectors(current[left], current[right], size, sum);
      current[left] = sum;
    }
  }
}

}  // namespace chorale::comm
