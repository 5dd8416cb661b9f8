// The additions of a reduction tree over vectors in memory: the one function in which every backend adds partial sums,
// so that all of them give the same bits (N3). It moves no data between ranks.
#pragma once

#include <cstddef>
#include <span>

#include "comm/reduction_tree.h"

namespace chorale::comm {

/// out[i] = the root over nodes[k][i], i < count, in the schedule's order. `nodes` holds one pointer per schedule node.
/// `out` may be the memory of one of the nodes, but must not overlap one partly.
void tree_sum(const TreeSchedule& schedule, std::span<const float* const> nodes, size_t count, float* out);

/// out[i] = left[i] + right[i]: one addition of the tree. `out` may be `left` or `right`.
void add_vectors(const float* left, const float* right, size_t count, float* out);

}  // namespace chorale::comm
