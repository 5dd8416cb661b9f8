// Logits as integer keys in the order of N8 (logit descending, then id ascending), sorted in chunks of 1024 ids, and
// the search for a place in the order of a whole row: what top_k and sample share. All of it is integer arithmetic but
// for cumulative weights, whose order of additions is stated at PrefixSearch; so nothing depends on how blocks are
// launched.
#pragma once

#include "worker/kernels/cuda/launch_support.cuh"
#include "worker/ops/logits.h"

namespace chorale::worker::inline SIMT {

constexpr unsigned kChunk = 1024;  // ids a block sorts
static_assert(kChunk == kVocabChunk);
constexpr unsigned kSortThreads = 256;

constexpr unsigned kIdBits = 24;
constexpr int64_t kMaxIds = int64_t{1} << kIdBits;
constexpr uint64_t kNoKey = 0;  // smaller than every key
constexpr uint64_t kAboveAllKeys = uint64_t{1} << (32 + kIdBits);

/// The larger key comes first. NaN counts as -inf, a denormal as zero, as in the comparisons of compute threads.
__device__ __forceinline__ uint64_t key_of(float logit, uint32_t id) {
  uint32_t bits = bits_of(logit);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) bits = 0xff800000u;
  if (magnitude < 0x00800000u) bits = 0;
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << kIdBits | (static_cast<uint32_t>(kMaxIds - 1) - id);
}
__device__ __forceinline__ int32_t id_of(uint64_t key) {
  return static_cast<int32_t>((kMaxIds - 1) - static_cast<int64_t>(key & (kMaxIds - 1)));
}
/// The logit as its key says it: -inf for NaN, zero for a denormal.
__device__ __forceinline__ float logit_of(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> kIdBits);
  return float_of((ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered);
}

__device__ __forceinline__ uint64_t larger_of(uint64_t a, uint64_t b) { return a > b ? a : b; }

__device__ __forceinline__ uint64_t largest_of_warp(uint64_t key) {
#pragma unroll
  for (unsigned mask = 16; mask > 0; mask /= 2) key = larger_of(key, shuffle_xor(key, mask));
  return key;
}

/// Thread 0 gets the largest key of its block's threads. `room`: a key a warp.
__device__ __forceinline__ uint64_t largest_of_block(uint64_t key, uint64_t* room) {
  key = largest_of_warp(key);
  if (lane() == 0) room[warp()] = key;
  sync_block();
  if (warp() == 0) key = largest_of_warp(lane() < block_dims().x / 32 ? room[lane()] : kNoKey);
  return key;
}

/// Bitonic sort, largest first, by the whole block; size is a power of two. Starts and ends with a barrier.
__device__ __forceinline__ void sort_descending(uint64_t* keys, unsigned size) {
  sync_block();
  for (unsigned length = 2; length <= size; length *= 2) {
    for (unsigned stride = length / 2; stride > 0; stride /= 2) {
      for (unsigned i = thread_index().x; i < size / 2; i += block_dims().x) {
        const unsigned low = 2 * i - (i & (stride - 1)), high = low + stride;
        const uint64_t a = keys[low], b = keys[high];
        if ((a < b) == ((low & length) == 0)) keys[low] = b, keys[high] = a;
      }
      // Pairs at most 32 apart lie in the 64 keys that one warp works on.
      const unsigned next = stride > 1 ? stride / 2 : length;
      if (stride > 32 || next > 32)
        sync_block();
      else
        sync_warp();
    }
  }
  sync_block();
}

/// One row's candidates, sorted within each chunk.
struct SortedChunks {
  const uint64_t* keys;      // [num_chunks, stride] largest first
  const double* cumulative;  // [num_chunks, stride] weight of a chunk's candidates up to this one; or null
  unsigned num_chunks, stride;
};

/// The candidates up to some place in the row's order: how many, and their weight.
struct Prefix {
  uint32_t count = 0;
  double weight = 0.0;
};

/// What first_where looks for: the first place whose prefix has `count` candidates, a weight of at least `weight`, or
/// more than `weight`.
struct Goal {
  enum class Kind : uint8_t { kCount, kReach, kPass } kind;
  uint32_t count = 0;
  double weight = 0.0;
  __device__ bool is_met(const Prefix& prefix) const {
    if (kind == Kind::kCount) return prefix.count >= count;
    return kind == Kind::kReach ? prefix.weight >= weight : prefix.weight > weight;
  }
};

/// Bisects keys until one candidate is left, all threads of a block together. The weight of a prefix is, chunk by
/// chunk, the cumulative weight of its last candidate there; chunk c is added in lane c mod 32, left to right, and the
/// 32 sums fold as a tree (lane i meets i + 16, i + 8, ...), in float64. It grows with the prefix, rounding included.
class PrefixSearch {
 public:
  /// Shared memory that it needs.
  static __host__ __device__ size_t bytes(unsigned num_chunks) { return sizeof(Shared) + num_chunks * sizeof(Slot); }

  /// `sizes(c)`: candidates of chunk c.
  template <typename Sizes>
  __device__ PrefixSearch(const SortedChunks& chunks, void* shared, const Sizes& sizes)
      : chunks_(chunks), shared_(static_cast<Shared*>(shared)), slots_(reinterpret_cast<Slot*>(shared_ + 1)) {
    for (unsigned c = thread_index().x; c < chunks_.num_chunks; c += block_dims().x)
      slots_[c].end = slots_[c].probe = sizes(c);
    prefix_ = fold();
  }

  /// All candidates that are left.
  __device__ const Prefix& prefix() const { return prefix_; }
  /// Those of chunk c. Only for the thread that it belongs to: c mod block size.
  __device__ uint32_t size(unsigned c) const { return slots_[c].end; }

  /// The first candidate whose prefix meets the goal, or the last one where none does. Drops all after it. REQUIRES: a
  /// candidate.
  __device__ uint64_t first_where(Goal goal) {
    if (!goal.is_met(prefix_)) goal = {Goal::Kind::kCount, prefix_.count};
    for (unsigned c = thread_index().x; c < chunks_.num_chunks; c += block_dims().x) slots_[c].begin = 0;
    uint64_t low = kNoKey, high = kAboveAllKeys;  // prefixes of keys >= low meet the goal, of keys >= high do not
    uint32_t before = 0;                          // candidates at or above `high`
    while (prefix_.count - before > 1) {
      const uint64_t middle = low + (high - low) / 2;
      for (unsigned c = thread_index().x; c < chunks_.num_chunks; c += block_dims().x) probe(c, middle);
      const Prefix prefix = fold();
      const bool is_met = goal.is_met(prefix) && prefix.count > 0;
      for (unsigned c = thread_index().x; c < chunks_.num_chunks; c += block_dims().x)
        (is_met ? slots_[c].end : slots_[c].begin) = slots_[c].probe;
      if (is_met)
        low = middle, prefix_ = prefix;
      else
        high = middle, before = prefix.count;
    }
    for (unsigned c = thread_index().x; c < chunks_.num_chunks; c += block_dims().x)
      if (slots_[c].end > slots_[c].begin) shared_->found = chunks_.keys[size_t{c} * chunks_.stride + slots_[c].begin];
    sync_block();
    const uint64_t found = shared_->found;
    sync_block();
    return found;
  }

 private:
  struct Slot {
    uint32_t begin, end, probe;  // candidates known to be before the place, before or at it, and of the last probe
  };
  struct Shared {
    Prefix prefix;
    uint64_t found;
  };

  /// slots_[c].probe = candidates of the chunk whose keys are >= key.
  __device__ void probe(unsigned c, uint64_t key) {
    const uint64_t* keys = chunks_.keys + size_t{c} * chunks_.stride;
    uint32_t begin = slots_[c].begin, end = slots_[c].end;
    while (begin < end) {
      const uint32_t middle = begin + (end - begin) / 2;
      if (keys[middle] >= key)
        begin = middle + 1;
      else
        end = middle;
    }
    slots_[c].probe = begin;
  }

  /// What the probes add up to.
  __device__ Prefix fold() {
    sync_block();
    if (warp() == 0) {
      Prefix sum;
      for (unsigned c = lane(); c < chunks_.num_chunks; c += 32) {
        const uint32_t size = slots_[c].probe;
        sum.count += size;
        if (chunks_.cumulative != nullptr)
          sum.weight = sum.weight + (size > 0 ? chunks_.cumulative[size_t{c} * chunks_.stride + size - 1] : 0.0);
      }
#pragma unroll
      for (unsigned width = 16; width > 0; width /= 2) {
        sum.count += shuffle_down(sum.count, width);
        sum.weight = sum.weight + shuffle_down(sum.weight, width);
      }
      if (lane() == 0) shared_->prefix = sum;
    }
    sync_block();
    return shared_->prefix;
  }

  SortedChunks chunks_;
  Shared* shared_;
  Slot* slots_;
  Prefix prefix_;
};

}  // namespace chorale::worker::inline SIMT
