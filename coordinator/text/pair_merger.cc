#include "coordinator/text/pair_merger.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <functional>
#include <queue>

namespace chorale::coordinator::text {
namespace {

constexpr uint32_t kNoRank = ~uint32_t{0};
constexpr size_t kMaxScanned = 48;  // symbols up to which scanning beats a heap

PairTable::Merge lookup(const PairTable& pairs, const Symbol& left, const Symbol& right) {
  const auto* merge = pairs.find(left.id, right.id);
  return merge != nullptr ? *merge : PairTable::Merge{kNoRank, -1};
}

void merge_by_scanning(const PairTable& pairs, std::vector<Symbol>& symbols) {
  PairTable::Merge merges[kMaxScanned];  // [i] of symbols i and i + 1
  size_t n = symbols.size();
  for (size_t i = 0; i + 1 < n; ++i) merges[i] = lookup(pairs, symbols[i], symbols[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == kNoRank) break;
    symbols[best].id = merges[best].id;
    symbols[best].length += symbols[best + 1].length;
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(best) + 2, symbols.begin() + static_cast<ptrdiff_t>(n),
              symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(merges + best + 1, merges + n - 1, merges + best);
    --n;
    if (best + 1 < n) merges[best] = lookup(pairs, symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = lookup(pairs, symbols[best - 1], symbols[best]);
  }
  symbols.resize(n);
}

void merge_by_heap(const PairTable& pairs, std::vector<Symbol>& symbols) {
  struct Candidate {
    uint32_t rank;
    uint32_t left;
    int32_t id;
    bool operator>(const Candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
  };
  constexpr uint32_t kEnd = ~uint32_t{0};
  const auto n = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> next(n);
  std::vector<uint32_t> previous(n);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto consider = [&](uint32_t left, uint32_t right) {
    if (const auto* merge = pairs.find(symbols[left].id, symbols[right].id)) queue.push({merge->rank, left, merge->id});
  };
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1 < n ? i + 1 : kEnd;
    previous[i] = i > 0 ? i - 1 : kEnd;
    if (i + 1 < n) consider(i, i + 1);
  }
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = symbols[best.left];
    const uint32_t right = next[best.left];
    if (left.length == 0 || right == kEnd) continue;
    const auto* merge = pairs.find(left.id, symbols[right].id);
    if (merge == nullptr || merge->id != best.id) continue;  // a neighbour has changed since
    left.id = best.id;
    left.length += symbols[right].length;
    symbols[right].length = 0;
    next[best.left] = next[right];
    if (next[right] != kEnd) previous[next[right]] = best.left;
    if (previous[best.left] != kEnd) consider(previous[best.left], best.left);
    if (next[best.left] != kEnd) consider(best.left, next[best.left]);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
}

constexpr size_t kCacheEntries = 1u << 13;

}  // namespace

PairTable::PairTable(size_t num_pairs) {
  slots_.resize(std::bit_ceil(2 * num_pairs + 2));
  mask_ = slots_.size() - 1;
}

void PairTable::add(int32_t left, int32_t right, Merge merge, IfPresent if_present) {
  const uint64_t key = key_of(left, right);
  size_t i = slot_of(key);
  while (slots_[i].key != kFree && slots_[i].key != key) i = (i + 1) & mask_;
  if (slots_[i].key == key && if_present == IfPresent::kKeep) return;
  slots_[i] = {key, merge};
}

void merge_pairs(const PairTable& pairs, std::vector<Symbol>& symbols) {
  if (symbols.size() <= kMaxScanned) {
    merge_by_scanning(pairs, symbols);
  } else {
    merge_by_heap(pairs, symbols);
  }
}

WordCache& WordCache::of_thread(uint64_t owner) {
  thread_local WordCache cache;
  if (cache.owner_ != owner) {
    cache.entries_.assign(kCacheEntries, Entry{});
    cache.owner_ = owner;
  }
  return cache;
}

uint64_t WordCache::new_owner() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

size_t WordCache::slot_of(std::string_view word) { return std::hash<std::string_view>{}(word) & (kCacheEntries - 1); }

bool WordCache::get(std::string_view word, std::vector<int32_t>& ids) const {
  if (word.size() > kMaxWordBytes) return false;
  const Entry& entry = entries_[slot_of(word)];
  if (entry.word_bytes != word.size() || std::memcmp(entry.word, word.data(), word.size()) != 0) return false;
  ids.insert(ids.end(), entry.ids, entry.ids + entry.num_ids);
  return true;
}

void WordCache::put(std::string_view word, const int32_t* ids, size_t num_ids) {
  if (word.empty() || word.size() > kMaxWordBytes || num_ids > kMaxIds) return;
  Entry& entry = entries_[slot_of(word)];
  entry.word_bytes = static_cast<uint8_t>(word.size());
  entry.num_ids = static_cast<uint8_t>(num_ids);
  std::memcpy(entry.word, word.data(), word.size());
  std::copy(ids, ids + num_ids, entry.ids);
}

}  // namespace chorale::coordinator::text
