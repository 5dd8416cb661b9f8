#include "worker/kernels/cpu/top_k_rows.h"
#include "worker/thread_pool.h"

#include <algorithm>
#include <limits>

namespace chorale::worker {
namespace {

/// Keeps the best k of a row in a heap whose front is the worst of them: one pass, whatever k is.
void select_row(const float* logits, int64_t n, int64_t k, int32_t* best, FindGreater find_greater) {
  const auto value = [logits](int32_t id) {
    return logits[id] == logits[id] ? logits[id] : -std::numeric_limits<float>::infinity();
  };
  const auto better = [&](int32_t a, int32_t b) { return value(a) > value(b) || (value(a) == value(b) && a < b); };
  for (int64_t i = 0; i < k; ++i) best[i] = static_cast<int32_t>(i);
  std::make_heap(best, best + k, better);
  // On a tie the lower id, seen before, stays: only greater values enter.
  for (int64_t id = find_greater(logits, k, n, value(best[0])); id < n;
       id = find_greater(logits, id + 1, n, value(best[0]))) {
    std::pop_heap(best, best + k, better);
    best[k - 1] = static_cast<int32_t>(id);
    std::push_heap(best, best + k, better);
  }
  std::sort_heap(best, best + k, better);
}

}  // namespace

void top_k_rows(OpContext& ctx, const TopKArgs& args, FindGreater find_greater) {
  ctx.pool.parallel_for(args.logits.rows, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) {
      const float* logits = args.logits.row<float>(row);
      int32_t* best = args.ids + row * args.k;
      select_row(logits, args.logits.cols, args.k, best, find_greater);
      if (args.values != nullptr)
        for (int64_t i = 0; i < args.k; ++i) args.values[row * args.k + i] = logits[best[i]];
    }
  });
}

}  // namespace chorale::worker
