#include "coordinator/schedule/block_pool.h"

#include <algorithm>

#include "comm/base/error.h"

namespace chorale::coordinator {

using parallel::kBlockTokens;

size_t BlockKeyHash::operator()(const BlockKey& key) const {
  // splitmix64 steps: cheap, and equal prompts of many jobs must not fall into one bucket.
  uint64_t hash = key.parent;
  for (int32_t token : key.tokens) {
    hash += 0x9e3779b97f4a7c15ULL + static_cast<uint32_t>(token);
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ULL;
    hash ^= hash >> 27;
  }
  return static_cast<size_t>(hash);
}

namespace {

BlockKey make_key(ContentId parent, std::span<const int32_t> tokens) {
  CHECK_EQ(tokens.size(), static_cast<size_t>(kBlockTokens));
  BlockKey key;
  key.parent = parent;
  std::copy(tokens.begin(), tokens.end(), key.tokens.begin());
  return key;
}

}  // namespace

BlockPool::BlockPool(int64_t num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  CHECK_GT(num_blocks, 0);
  for (int64_t block = num_blocks - 1; block >= 0; --block) empty_.push_back(static_cast<int32_t>(block));
}

int32_t BlockPool::allocate() {
  CHECK_GT(num_free(), 0);
  int32_t id;
  if (!empty_.empty()) {
    id = empty_.back();
    empty_.pop_back();
  } else {
    id = lru_.front();
    lru_.pop_front();
    index_.erase(at(id).key);
    at(id).content = kRootContent;
  }
  at(id).references = 1;
  return id;
}

void BlockPool::acquire(int32_t block) {
  Block& b = at(block);
  CHECK_NE(b.content, kRootContent);
  if (b.references++ == 0) lru_.erase(b.place_in_lru);
}

void BlockPool::release(int32_t block) {
  Block& b = at(block);
  CHECK_GT(b.references, 0);
  if (--b.references > 0) return;
  if (b.content == kRootContent) {
    empty_.push_back(block);
  } else {
    b.place_in_lru = lru_.insert(lru_.end(), block);
  }
}

std::vector<CachedBlock> BlockPool::find(std::span<const int32_t> tokens, int64_t max_blocks) const {
  std::vector<CachedBlock> found;
  ContentId parent = kRootContent;
  const auto num_full = std::min(max_blocks, static_cast<int64_t>(tokens.size()) / kBlockTokens);
  for (int64_t i = 0; i < num_full; ++i) {
    const auto entry =
        index_.find(make_key(parent, tokens.subspan(static_cast<size_t>(i) * kBlockTokens, kBlockTokens)));
    if (entry == index_.end()) break;
    found.push_back(entry->second);
    parent = entry->second.content;
  }
  return found;
}

ContentId BlockPool::publish(int32_t block, ContentId parent, std::span<const int32_t> tokens) {
  Block& b = at(block);
  CHECK_GT(b.references, 0);
  CHECK_EQ(b.content, kRootContent);
  const BlockKey key = make_key(parent, tokens);
  const auto [entry, inserted] = index_.try_emplace(key, CachedBlock{block, next_content_});
  if (inserted) {
    b.key = key;
    b.content = next_content_++;
  }
  return entry->second.content;
}

void BlockPool::check_integrity() const {
  size_t num_used = 0;
  size_t num_findable = 0;
  for (size_t id = 0; id < blocks_.size(); ++id) {
    const Block& b = blocks_[id];
    CHECK_GE(b.references, 0);
    num_used += b.references > 0 ? 1 : 0;
    if (b.content == kRootContent) continue;
    ++num_findable;
    const auto entry = index_.find(b.key);
    CHECK(entry != index_.end());
    CHECK_EQ(entry->second.block, static_cast<int32_t>(id));
    CHECK_EQ(entry->second.content, b.content);
  }
  CHECK_EQ(num_findable, index_.size());
  CHECK_EQ(num_used + empty_.size() + lru_.size(), blocks_.size());
  for (int32_t id : empty_)
    CHECK(blocks_[static_cast<size_t>(id)].references == 0 && blocks_[static_cast<size_t>(id)].content == kRootContent);
  for (int32_t id : lru_)
    CHECK(blocks_[static_cast<size_t>(id)].references == 0 && blocks_[static_cast<size_t>(id)].content != kRootContent);
}

}  // namespace chorale::coordinator
